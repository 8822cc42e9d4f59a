"""A conversation of the OpenAI Agents SDK that is kept in one key: two runs, the second knows what the first said.

pip install 'llmcache-client[openai-agents]'
"""

from __future__ import annotations

import asyncio
import os
import sys

import redis.asyncio
from agents import Agent, Runner
from agents.models.interface import Model

from llmcache.integrations.openai_agents import LlmcacheSession


async def main(url: str, model: Model | None = None) -> list[str]:
    client = redis.asyncio.from_url(url)
    agent = Agent(name="Assistant", instructions="Be brief.", model=model)
    session = LlmcacheSession("user-1", client, ttl=86_400)
    said = []
    for question in ("My name is Ada.", "What is my name?"):
        result = await Runner.run(agent, question, session=session)
        said.append(str(result.final_output))
    said.append(f"{len(await session.get_items())} items are kept")
    await client.aclose()
    return said


if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
    print("\n".join(asyncio.run(main(url))))
