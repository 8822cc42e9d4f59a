"""Searches of texts that the server embeds: they go on in rounds and in the threads that search, as those of vectors do."""

from __future__ import annotations

import pytest
from harness.model import models_option, write_model
from harness.wire import Failure

WORDS = ["ab", "cd", "ef", "gh", "xx", "yy"]
TEXTS = [f"{one} {other}" for one in WORDS for other in WORDS]


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    model = write_model(tmp_path_factory.mktemp("model"), threshold=0.8)
    return {
        "llmcache.embed-models": models_option(small=model),
        "llmcache.embed-engine": "scalar",
        "llmcache.embed-threads": 1,
        "llmcache.embed-timeout-ms": 60_000,
        "llmcache.embed-memo": 0,
    }


def fill(wire) -> None:
    wire("LLMCACHE.CREATE", "faq", "EMBED", "small", "GUARD", "OFF")
    wire("RAG.CREATE", "docs", "EMBED", "small")
    for at, text in enumerate(TEXTS):
        for command in (("LLMCACHE.SETSEM", "faq", "PROMPT", text, "RESPONSE", f"r{at}"), ("RAG.ADD", "docs", f"d{at}", "TEXT", text)):
            reply = wire(*command)
            assert not isinstance(reply, Failure), reply.text


CASES = {
    "RAG.SEARCH": ["docs", "TEXT", "ab cd ef", "COUNT", 5, "RETURN", 2, "id", "similarity"],
    "LLMCACHE.GETSEM": ["faq", "PROMPT", "ab cd ef", "COUNT", 5, "THRESHOLD", "-1", "RETURN", 2, "prompt", "similarity"],
    "LLMCACHE.MGETSEM": [
        "faq", 3, "PROMPT", "ab cd ef", "PROMPT", "ab cd", "PROMPT", "xx yy ef", "COUNT", 3, "THRESHOLD", "-1", "RETURN", 2, "prompt", "similarity",
    ],
}  # fmt: skip


@pytest.mark.parametrize("resp", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_they_are_searched_in_threads_and_answer_the_same(fleet, options, name, resp):
    replies = []
    for threads, inline_us in ((2, 0), (2, 1_000_000), (0, 0)):
        server = fleet.launch(**options, llmcache__search_threads=threads, llmcache__search_inline_us=inline_us)
        with server.wire(resp=resp) as wire:
            fill(wire)
            before = int(server.info()["llmcache_searches_in_threads"])
            reply = wire(name, *CASES[name])
            assert not isinstance(reply, Failure) and reply, reply
            replies.append(reply)
            given = int(server.info()["llmcache_searches_in_threads"]) - before
            assert (given > 0) == (threads > 0 and inline_us == 0), (given, threads, inline_us)
            assert int(server.info()["llmcache_clients_blocked"]) == 0
    assert replies[0] == replies[1] == replies[2]
