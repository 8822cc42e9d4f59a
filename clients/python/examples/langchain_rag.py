"""Questions answered from documents, each once: LangChain's cache by meaning and its vector store over llmcache.

pip install 'llmcache-client[langchain]'
"""

from __future__ import annotations

import os
import sys

import redis
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from llmcache.integrations.langchain import LlmcacheCache, LlmcacheEmbeddings, LlmcacheVectorStore

TEXTS = ["Refunds take up to 5 days.", "Parcels leave the same day.", "The shop is closed on Sundays."]


def main(url: str, embeddings: Embeddings, model: BaseChatModel) -> list[str]:
    client = redis.from_url(url)
    known = LlmcacheEmbeddings(client, embeddings, model="mine")
    store = LlmcacheVectorStore(client, "shop", embeddings=known)
    store.add_texts(TEXTS, ids=["refunds", "parcels", "sundays"])
    # Whoever asks the same of the same documents gets the answer that is there, by meaning too.
    model.cache = LlmcacheCache(client, "answers", embeddings=known, threshold=0.9)
    prompt = ChatPromptTemplate.from_messages([("system", "Answer from: {context}"), ("human", "{question}")])
    context = store.as_retriever(search_kwargs={"k": 1}) | (lambda found: found[0].page_content)
    chain = {"context": context, "question": RunnablePassthrough()} | prompt | model | StrOutputParser()
    return [
        chain.invoke(question)
        for question in ("how long do refunds take", "how long do refunds take", "when is the shop closed")
    ]


if __name__ == "__main__":
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_core.language_models.fake_chat_models import FakeListChatModel

    where = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
    # They stand for your models.
    print(main(where, DeterministicFakeEmbedding(size=64), FakeListChatModel(responses=["5 days.", "On Sundays."])))
