"""The examples of docs/python.md run as they stand, given what they say stands for the application's own."""

from __future__ import annotations

import ast
import asyncio
import inspect
import textwrap

import pytest
import redis
import redis.asyncio
from conftest import ROOT
from words import embed

import llmcache
import llmcache.asyncio
from llmcache import Context, F, LLMCache, Pipeline, Session, user


def blocks() -> list[str]:
    """The indented blocks of the page."""
    found: list[list[str]] = [[]]
    for line in (ROOT / "docs/python.md").read_text().splitlines():
        if line.startswith("    "):
            found[-1].append(line)
        elif line.strip():
            if found[-1]:
                found.append([])
        elif found[-1]:
            found[-1].append(line)
    return [textwrap.dedent("\n".join(block)).strip() for block in found if block]


BLOCKS = blocks()


def test_there_are_examples():
    assert len(BLOCKS) >= 4
    assert any("get_or_make" in block for block in BLOCKS)
    assert any("move(" in block for block in BLOCKS)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_an_example_runs(server, block):
    async def model(*_):
        for word in ("one ", "two"):
            yield word

    async def main():
        with redis.Redis(port=server.port) as r:
            async with redis.asyncio.Redis(port=server.port) as aio:
                session = Session(r, "chat:7")
                session.append(user("hello"))
                awaited = "async " in block
                names = {
                    "r": r, "redis": redis, "LLMCache": LLMCache, "Context": Context, "F": F, "Pipeline": Pipeline,
                    "embed": embed, "generate": lambda question: "made", "prompt": "Be brief.", "question": "what?",
                    "cache": LLMCache(r, "faq"), "model": model, "llmcache": llmcache,
                    "session": llmcache.asyncio.Session(aio, "chat:8") if awaited else session,
                }  # fmt: skip
                code = compile(block, "docs/python.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                outcome = eval(code, names)
                if inspect.isawaitable(outcome):
                    await outcome

    asyncio.run(main())
