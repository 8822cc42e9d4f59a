"""LlamaIndex: passages in an index of the server, the conversation in a chat store beside it.

pip install 'llmcache-client[llamaindex]'
"""

from __future__ import annotations

import os
import sys
from typing import Any

import redis
from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer

from llmcache.integrations.llamaindex import LlmcacheChatStore, LlmcacheVectorStore


def main(url: str, embedding: Any = None, llm: Any = None) -> list[str]:
    """With the models of the application in the place of the two that stand for them here."""
    client = redis.from_url(url)
    embedding, llm = embedding or MockEmbedding(embed_dim=64), llm or MockLLM()
    storage = StorageContext.from_defaults(vector_store=LlmcacheVectorStore(client, name="passages"))
    passages = ["Returns are free within 30 days.", "Refunds take up to 5 days.", "Parcels leave the same day."]
    index = VectorStoreIndex.from_documents(
        [Document(text=text, metadata={"page": page}) for page, text in enumerate(passages)],
        storage_context=storage, embed_model=embedding,
    )  # fmt: skip
    question = "How long do refunds take?"
    found = index.as_retriever(similarity_top_k=1).retrieve(question)
    memory = ChatMemoryBuffer.from_defaults(
        chat_store=LlmcacheChatStore(client, ttl=86_400), chat_store_key="user-1", llm=llm
    )
    memory.put(ChatMessage(role="user", content=question))
    memory.put(ChatMessage(role="assistant", content=found[0].text))
    return [found[0].text, *[str(message.content) for message in memory.get()]]


if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
    print("\n".join(main(url)))
