"""Commands with more text than is read at once: threads read the rest, and what comes of it is the same."""

from __future__ import annotations

import pytest
from harness.model import models_option, write_model
from harness.waiting import wait_until
from harness.worst import LONGEST_RUN

WORDS = ["ab cd", "mm nn", "qq rr", "ss tt", "uu vv"]
# Thirty times as many bytes as are read at once: to read them is more work than any command may do in one piece.
COUNT = 480
TEXTS = [f"{WORDS[n % 5]} {WORDS[n // 5 % 5]} {'z' * 1_000}{n}".encode() for n in range(COUNT)]
# Neither is read: one among the first, one among the rest.
TEXTS[3] = "я".encode() * 600
TEXTS[403] = b"\xff" * 1_000


@pytest.fixture(scope="module")
def option(tmp_path_factory):
    small = write_model(tmp_path_factory.mktemp("models") / "small", threshold=0.8)
    return {"llmcache.embed-models": models_option(small=small), "llmcache.check-work": "yes"}


@pytest.fixture(params=[0, 1_000], ids=["forgotten", "remembered"])
def server(fleet, option, request):
    return fleet.launch(**option, **{"llmcache.embed-memo": request.param})


def what_was_found(hits) -> list[list[bytes]]:
    """Of each its id, tier and similarity."""
    return [hit[:6] for hit in hits or []]


def longest_run(server) -> int:
    return int(server.info()["llmcache_last_command_longest_run"])


def test_questions_are_answered_as_alone(server):
    with server.wire(timeout=60) as wire:
        wire("LLMCACHE.CREATE", "faq", "DIM", 64, "EMBED", "small")
        for n in range(0, COUNT, 8):
            wire("LLMCACHE.SETSEM", "faq", "PROMPT", TEXTS[n], "RESPONSE", f"r{n}")
        alone = [what_was_found(wire("LLMCACHE.GETSEM", "faq", "PROMPT", text, "COUNT", 2)) for text in TEXTS]
        asked = [part for text in TEXTS for part in ("PROMPT", text)]
        for _ in range(2):
            found = [what_was_found(reply) for reply in wire("LLMCACHE.MGETSEM", "faq", COUNT, *asked, "COUNT", 2)]
            assert found == alone
            assert longest_run(server) <= LONGEST_RUN
        assert COUNT > sum(bool(hits) for hits in alone) >= COUNT // 8


def test_messages_have_the_vectors_they_have_alone(server):
    with server.wire(timeout=60) as wire:
        for text in TEXTS:
            wire("SESSION.APPEND", "alone", "EMBED", "small", "MSG", "user", text)
        reply = wire("SESSION.APPEND", "chat", "EMBED", "small", *(part for text in TEXTS for part in ("MSG", "user", text)))
        assert reply[-2] == COUNT
        assert longest_run(server) <= LONGEST_RUN
        assert wire("SESSION.EXPORT", "chat") == wire("SESSION.EXPORT", "alone")
        without = [n for n, line in enumerate(wire("SESSION.EXPORT", "chat")) if b"vector_f16_hex" not in line]
        assert without == [3, 403]


def test_a_client_that_leaves_leaves_no_text_waiting(server):
    with server.wire(timeout=60) as wire:
        wire("LLMCACHE.CREATE", "faq", "DIM", 64, "EMBED", "small")
        wire.send("LLMCACHE.MGETSEM", "faq", COUNT, *(part for text in TEXTS for part in ("PROMPT", text)))
    wait_until(lambda: int(server.info()["llmcache_texts_queued"]) == 0, "nothing waits")
