"""What a client can have the server answer at once is bounded, and says what it left out."""

from __future__ import annotations

import json

import pytest
from harness.wire import Failure

MIB = 1 << 20


@pytest.fixture
def server(fleet):
    return fleet.launch(llmcache__reply_max_bytes=MIB)


def refused(wire, *command) -> str:
    reply = wire(*command)
    assert isinstance(reply, Failure), reply
    return reply.text


def fill_session(wire, messages: int, payload: bytes = b"x" * 10_000) -> None:
    for first in range(0, messages, 50):
        args = []
        for _ in range(min(50, messages - first)):
            args += ["MSG", "user", payload, "TOKENS", 1]
        reply = wire("SESSION.APPEND", "s", *args)
        assert not isinstance(reply, Failure), reply.text


def test_a_range_is_refused_and_a_window_ends(server):
    with server.wire() as wire:
        fill_session(wire, 300)
        assert refused(wire, "SESSION.RANGE", "s", "-", "+").startswith("TOOBIG")
        assert len(wire("SESSION.RANGE", "s", "-", "+", "COUNT", 50)) == 50
        tokens, first, more, messages = wire("SESSION.WINDOW", "s")
        assert more == 1 and 90 <= len(messages) < 300
        assert first == messages[0][0] and tokens == len(messages)
        assert refused(wire, "SESSION.POP", "s", "COUNT", 300).startswith("TOOBIG")
        assert wire("SESSION.LEN", "s") == 300, "what was refused has removed nothing"


def test_an_export_goes_page_by_page(server):
    with server.wire() as wire:
        fill_session(wire, 300)
        assert refused(wire, "SESSION.EXPORT", "s").startswith("TOOBIG")
        seqs, at = [], 1
        while lines := wire("SESSION.EXPORT", "s", "FROM", at):
            seqs += [json.loads(line)["seq"] for line in lines]
            at = seqs[-1] + 1
        assert seqs == list(range(1, 301))
        assert len(wire("SESSION.EXPORT", "s", "FROM", 299, "COUNT", 10)) == 2


def test_more_messages_than_a_reply_may_have(server):
    with server.wire() as wire:
        fill_session(wire, 10_500, b"")
        assert "go on with from 10001" in refused(wire, "SESSION.RANGE", "s", "-", "+")
        assert "go on with to 500" in refused(wire, "SESSION.RANGE", "s", "-", "+", "REV")
        assert wire("SESSION.WINDOW", "s")[1:3] == [501, 1]
        assert "10000" in refused(wire, "SESSION.EXPORT", "s")


def test_hits_of_lookups_and_searches(server):
    def vector(at: int) -> list:
        return ["VALUES", 2, 1, at / 1000]

    with server.wire() as wire:
        for at in range(20):
            wire("LLMCACHE.SETSEM", "faq", "PROMPT", f"question {at}", "RESPONSE", b"r" * 100_000, *vector(at))
            wire("RAG.ADD", "docs", f"d{at}", *vector(at), "TEXT", b"t" * 100_000)
        ask = ["LLMCACHE.GETSEM", "faq", *vector(0), "THRESHOLD", "-1", "GUARD", "OFF"]
        assert refused(wire, *ask, "COUNT", 20).startswith("TOOBIG")
        assert len(wire(*ask, "COUNT", 5)) == 5
        assert len(wire(*ask, "COUNT", 20, "RETURN", 1, "id")) == 20
        ask = ["LLMCACHE.MGETSEM", "faq", 4, *(part for at in range(4) for part in vector(at)), "THRESHOLD", "-1"]
        assert refused(wire, *ask, "COUNT", 4).startswith("TOOBIG")
        assert [len(hits) for hits in wire(*ask, "COUNT", 2)] == [2, 2, 2, 2]
        assert refused(wire, "RAG.SEARCH", "docs", *vector(0), "COUNT", 20).startswith("TOOBIG")
        assert len(wire("RAG.SEARCH", "docs", *vector(0), "COUNT", 20, "RETURN", 1, "id")) == 20
        ids = ["IDS", 20, *(f"d{at}" for at in range(20))]
        assert refused(wire, "RAG.MGET", "docs", *ids).startswith("TOOBIG")
        assert len(wire("RAG.MGET", "docs", *ids, "RETURN", 1, "id")) == 20


def test_numbers_as_text(server):
    with server.wire() as wire:
        wire("EMBCACHE.CREATE", "e", "MODEL", "m", "DIM", 1_000)
        for at in range(20):
            wire("EMBCACHE.SET", "e", "TEXT", f"t{at}", "VALUES", 1_000, *([1] * 1_000))
        texts = [f"t{at}" for at in range(20)]
        assert refused(wire, "EMBCACHE.MGET", "e", "TEXTS", 20, *texts, "AS", "VALUES").startswith("TOOBIG")
        assert len(wire("EMBCACHE.MGET", "e", "TEXTS", 16, *texts[:16], "AS", "VALUES")) == 16
        assert len(wire("EMBCACHE.MGET", "e", "TEXTS", 20, *texts)) == 20


def test_one_thing_passes_whatever_its_size(server):
    with server.wire() as wire:
        wire("SESSION.APPEND", "s", "MSG", "user", b"x" * (2 * MIB))
        assert len(wire("SESSION.RANGE", "s", "-", "+")) == 1
        assert len(wire("SESSION.EXPORT", "s")) == 1


def test_replies_that_nobody_reads_evict_nothing(fleet):
    server = fleet.launch(maxmemory=64 * MIB, maxmemory_policy="allkeys-lfu")
    with server.wire() as wire, server.wire() as lazy:
        for at in range(20):
            wire("LLMCACHE.SETSEM", "faq", "PROMPT", f"question {at}", "RESPONSE", b"r" * 100_000, "VALUES", 2, 1, at / 1e3)
        lookup = ["LLMCACHE.MGETSEM", "faq", 3, *["VALUES", 2, 1, 0] * 3, "COUNT", 20, "THRESHOLD", "-1"]
        for _ in range(40):
            lazy.send(*lookup)
        assert wire("LLMCACHE.GET", "faq", "PROMPT", "question 1") is not None, "what answers little is answered"
        stats = server.info()
        assert int(stats["evicted_keys"]) == 0 and int(stats["used_memory"]) < 48 * MIB
        replies = [lazy.read() for _ in range(40)]
        # A look-up that goes on in rounds is refused question by question.
        parts = [part for reply in replies for part in (reply if isinstance(reply, list) else [reply])]
        busy = [part.text for part in parts if isinstance(part, Failure)]
        assert 0 < len(busy) < len(parts) and all(text.startswith("BUSY") for text in busy)
        assert all(len(part) == 20 for part in parts if not isinstance(part, Failure))


def test_a_list_of_many_goes_page_by_page(server):
    """A page looks at 2,048 sessions, whatever COUNT asks for."""
    with server.wire() as wire:
        wire.pipeline([("SESSION.APPEND", f"s{at}", "OWNER", "o", "MSG", "user", "x") for at in range(3_000)])
        wire("DEL", "o")
        wire("ZADD", "o", *(part for at in range(3_000) for part in (10 + at, f"s{at}")))
        first = wire("SESSION.LIST", "o", "COUNT", 10_000)
        assert len(first) == 2_049 and first[-1] == [None, 10 + 3_000 - 2_048, 0, 0]
        rest = wire("SESSION.LIST", "o", "COUNT", 10_000, "BEFORE", first[-1][1])
        assert [row[0] for row in first[:-1] + rest] == [b"s%d" % at for at in reversed(range(3_000))]


def test_a_list_past_many_that_are_gone_says_where_to_go_on(server):
    with server.wire() as wire:
        wire("SESSION.APPEND", "alive", "OWNER", "o", "MSG", "user", "hello")
        wire("ZADD", "o", 1, "alive")
        for first in range(0, 6_000, 1_000):
            wire("ZADD", "o", *(part for at in range(first, first + 1_000) for part in (10 + at // 2, f"gone-{at}")))
        pages, before = [], "9" * 13
        while True:
            rows = wire("SESSION.LIST", "o", "COUNT", 10, "BEFORE", before)
            if rows[-1][0] is not None:
                break
            assert len(rows) == 1 and rows[0][2:] == [0, 0]
            pages.append(rows)
            before = rows[0][1]
        # Each page looks at so many, and at all of one moment.
        assert len(pages) == 2 and [row[0] for row in rows] == [b"alive"]
        # Those found dead go with the appends that follow.
        before = wire("ZCARD", "o")
        wire("SESSION.APPEND", "alive", "OWNER", "o", "MSG", "user", "again")
        assert before - wire("ZCARD", "o") >= 64
