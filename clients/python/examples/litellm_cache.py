"""LiteLLM over llmcache: the same question in other words is answered once, of many who ask at once one asks the model.

pip install 'llmcache-client[litellm]'
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

import litellm
import redis.asyncio

from llmcache.integrations.litellm import LlmcacheLiteLLM


async def main(url: str, embed: Callable[[str], list[float]], **model: Any) -> list[str]:
    """`model` goes to LiteLLM: its name, and for tests a `mock_response`."""
    client = redis.asyncio.from_url(url)
    litellm.cache = litellm.Cache(type="local")
    litellm.cache.cache = LlmcacheLiteLLM(client, embed=embed, threshold=0.6)
    questions = ["how do I get my money back"] * 5
    # Answers are stored a moment after they came: the third trip is told in other words what the first was.
    answers = await asyncio.gather(*(ask(question, **model) for question in questions))
    await asyncio.sleep(0.3)
    answers.append(await ask("how can I get my money back", **model))
    litellm.cache = None
    await client.aclose()
    return answers


async def ask(question: str, **model: Any) -> str:
    reply = await litellm.acompletion(messages=[{"role": "user", "content": question}], caching=True, **model)
    return str(reply.choices[0].message.content)


if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")

    def embedding(text: str) -> list[float]:
        made = litellm.embedding(model="text-embedding-3-small", input=[text])
        return list(made.data[0]["embedding"])

    print("\n".join(asyncio.run(main(url, embedding, model="gpt-4o-mini"))))
