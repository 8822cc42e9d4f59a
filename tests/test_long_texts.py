"""Long texts in an index of words, and long questions: nobody waits for them to be read, and all of them is read.

Work is counted by the server (`llmcache.check-work`), so that no machine decides; the most of it in one piece is what any
command may do.
"""

import select

import pytest
from harness.persistence import wait_for_rewrite
from harness.replication import pair
from harness.waiting import wait_until
from harness.wire import Failure, Wire
from harness.worst import LONGEST_RUN

MIB = 1 << 20
# Each a MiB, read in another way: plain words, all different, no space anywhere, joined by signs, scripts without
# spaces with and without marks, letters of many code points, letters that stand for many, and no text at all.
SHAPES = {
    "plain": "common " * (MIB // 7),
    "different": " ".join(f"z{at}" for at in range(MIB // 8)),
    "no space": "x" * MIB,
    "joined": "a-" * (MIB // 2),
    "codes": "a.b1_" * (MIB // 5),
    "pairs": "東京都市" * (MIB // 12),
    "sentences": "東京都市。" * (MIB // 15),
    "marks": "a" + "\u0301" * (MIB // 2),
    "accents": "e\u0301 " * (MIB // 4),
    "ligatures": "\ufdfa " * (MIB // 4),
    "bytes": b"\xff" * MIB,
}
LONG = " ".join(f"word{at % 5_000}" for at in range(100_000)) + " heat shield"


@pytest.fixture
def server(fleet):
    return fleet.launch(llmcache__check_work="yes")


def longest_run(server) -> int:
    info = server.info()
    assert int(info["llmcache_bounds_broken"]) == 0
    return int(info["llmcache_last_command_longest_run"])


def is_read(server) -> bool:
    return int(server.info()["llmcache_clients_blocked"]) > 0


def ids(wire, *asked):
    found = wire("RAG.SEARCH", "docs", *asked, "RETURN", 1, "id")
    assert not isinstance(found, Failure), found
    return [one[1].decode() for one in found]


def settled(wire, *asked):
    """What is found once all is read."""

    def found():
        reply = wire("RAG.SEARCH", "docs", *asked, "RETURN", 1, "id")
        return None if isinstance(reply, Failure) and reply.word == "TRYAGAIN" else reply

    wait_until(lambda: found() is not None, "all texts are read", seconds=60)
    return [one[1].decode() for one in found()]


@pytest.mark.parametrize("shape", SHAPES)
def test_reading_a_text_holds_up_nobody(server, shape):
    text = SHAPES[shape]
    text = text if isinstance(text, bytes) else text.encode()
    with server.wire() as wire:
        wire("RAG.CREATE", "docs", "WORDS", "english")
        assert wire("RAG.ADD", "docs", "long", "TEXT", text + b" heat shield") == 1
        assert longest_run(server) <= LONGEST_RUN
        # Of more different words than count, the last may be among the others.
        last = ["z7"] if shape == "different" else ["heat"]
        assert ids(wire, "WORDS", *last) == ["long"]
        assert ids(wire, "WORDS", '"heat shield"') == ([] if shape == "different" else ["long"])
        assert longest_run(server) <= LONGEST_RUN
        assert wire("RAG.DEL", "docs", "long") == 1
        assert ids(wire, "WORDS", *last) == []
        assert longest_run(server) <= LONGEST_RUN


def test_a_long_question_is_read_as_far_as_it_counts(server):
    with server.wire() as wire:
        wire("RAG.CREATE", "docs", "WORDS", "english")
        for at in range(2_000):
            wire("RAG.ADD", "docs", f"d{at}", "TEXT", f"common words of text n{at}")
        for question in ("common " * (2 * MIB), "x" * (16 * MIB), " ".join(f"n{at}" for at in range(100_000))):
            found = ids(wire, "TEXT", question, "COUNT", 5)
            # The bytes of the question itself, which the model of an index would read, are none of it.
            assert longest_run(server) <= LONGEST_RUN, question[:20]
            assert len(found) == (0 if question[0] == "x" else 5)
        many = " ".join(f"n{at}" for at in range(2_500))
        assert wire("RAG.SEARCH", "docs", "WORDS", many).word == "TOOBIG"
        assert longest_run(server) <= LONGEST_RUN


def test_phrases_are_looked_for_once_in_each_text(server):
    """A phrase of repeated words in a text of repeated words was the product of both; each round began with all texts."""
    with server.wire() as wire:
        wire("RAG.CREATE", "docs", "WORDS", "english")
        wire("RAG.ADD", "docs", "long", "TEXT", "common " * (MIB // 7) + "heat shield")
        for at in range(900):
            wire("RAG.ADD", "docs", f"d{at}", "TEXT", "common shield heat " * 10)
        assert ids(wire, "WORDS", '"%s heat"' % ("common " * 1_000)) == ["long"]
        assert longest_run(server) <= LONGEST_RUN
        assert ids(wire, "WORDS", '"heat shield"', "COUNT", 1_000) == ["long"]
        assert ids(wire, "WORDS", '"shield common"', "COUNT", 1_000) == []
        assert longest_run(server) <= LONGEST_RUN
        many = " ".join(f'"common n{at}"' for at in range(65))
        assert wire("RAG.SEARCH", "docs", "WORDS", many).word == "TOOBIG"


def test_where_nobody_can_wait_much_to_read_is_refused(server):
    with server.wire() as wire:
        wire("RAG.CREATE", "docs", "WORDS", "english")
        for text, is_much in (("common " * (MIB // 7), True), (LONG[:200_000], False)):
            wire("MULTI")
            wire("RAG.ADD", "docs", "long", "TEXT", text)
            (reply,) = wire("EXEC")
            assert (isinstance(reply, Failure) and reply.word == "BUSY") == is_much, reply
            script = "return redis.pcall('RAG.ADD', KEYS[1], 'long', 'TEXT', ARGV[1])"
            reply = wire("EVAL", script, 1, "docs", text)
            assert (isinstance(reply, Failure) and "BUSY" in reply.text) == is_much, reply
            assert len(ids(wire, "WORDS", "common word7")) == (not is_much)


def test_what_is_removed_while_it_is_read(server):
    """Other clients come between the parts: the container goes, or the client."""
    with server.wire() as wire, server.wire() as other:
        for ends in ("DEL", "FLUSHALL"):
            wire("RAG.CREATE", "docs", "WORDS", "english")
            wire.send("RAG.ADD", "docs", "long", "TEXT", LONG)
            wait_until(lambda: is_read(server) or select.select([wire.socket], [], [], 0)[0], "its reading begins", seconds=60)
            other(ends, *(["docs"] if ends == "DEL" else []))
            reply = wire.read()
            assert reply == 1 or reply.word == "BUSY", reply
            assert ids(other, "WORDS", "heat") == []
        wire("RAG.CREATE", "docs", "WORDS", "english")
        leaving = Wire(server.port)
        leaving.send("RAG.ADD", "docs", "long", "TEXT", LONG)
        leaving.close()
        # What is written is finished, or was never begun.
        wait_until(lambda: not is_read(server), "nothing is left to do", seconds=60)
        assert ids(other, "WORDS", "heat") in (["long"], [])


def test_replicas_and_restarts_read_all_of_it(fleet):
    both = pair(fleet, appendonly="yes", llmcache__check_work="yes")
    primary, replica = both.primary, both.replica
    with primary.wire() as wire, replica.wire() as behind:
        wire("RAG.CREATE", "docs", "WORDS", "english")
        wire("RAG.ADD", "docs", "long", "TEXT", LONG)
        wire("RAG.ADD", "docs", "short", "TEXT", "a heat shield")
        assert ids(wire, "WORDS", '"heat shield"') == ["short", "long"]
        assert wire("WAIT", 1, 30_000) == 1
        assert settled(behind, "WORDS", '"heat shield"') == ["short", "long"]
        assert int(replica.info()["llmcache_bounds_broken"]) == 0
        # Without WORDS it is no less whole.
        assert ids(behind, "TEXT", "shield") == ["short", "long"]
        dump = wire("DUMP", wire("KEYS", "*long*")[0])
        key = wire("KEYS", "*long*")[0]
        wire("DEL", key)
        assert ids(wire, "WORDS", "heat") == ["short"]
        assert wire("RESTORE", key, 0, dump) == "OK"
        assert settled(wire, "WORDS", '"heat shield"') == ["short", "long"]
        wire("DEBUG", "RELOAD")
        assert settled(wire, "WORDS", '"heat shield"') == ["short", "long"]
        wire("BGREWRITEAOF")
        wait_for_rewrite(primary.client())
    primary.restart()
    with primary.wire() as wire:
        assert settled(wire, "WORDS", '"heat shield"') == ["short", "long"]
