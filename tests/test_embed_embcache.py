"""A cache of embeddings that embeds what it lacks: one text is computed once, however often it is asked for."""

from __future__ import annotations

import struct

import pytest
import redis
from harness.model import models_option, write_model
from harness.replication import pair
from harness.wire import Failure
from harness.worst import LONGEST_RUN

TEXT = "ab cd ef gh"
LONG = " ".join(["ab"] * 90)


@pytest.fixture(scope="session")
def option(tmp_path_factory):
    return {"llmcache.embed-models": models_option(small=write_model(tmp_path_factory.mktemp("model"), threshold=0.8))}


@pytest.fixture
def server(fleet, option):
    return fleet.launch(**option, **{"llmcache.embed-memo": 0})


@pytest.fixture
def run(server):
    client = server.client()
    client.execute_command("EMBCACHE.CREATE", "emb", "EMBED", "small")
    return client.execute_command


def embedded(run) -> int:
    return run("INFO", "llmcache")["llmcache_texts_embedded"]


def shown(reply) -> dict:
    return dict(zip(reply[::2], reply[1::2], strict=True))


def test_settings_follow_from_the_model(run):
    told = shown(run("EMBCACHE.INFO", "emb"))
    assert told[b"dim"] == 64
    assert told[b"model"].startswith(b"small@")
    for command in (["e2"], ["e2", "EMBED", "none"], ["e2", "DIM", 3]):
        with pytest.raises(redis.ResponseError, match="or EMBED|wrong number"):
            run("EMBCACHE.CREATE", *command)
    with pytest.raises(redis.ResponseError, match="MODEL is left out"):
        run("EMBCACHE.CREATE", "e2", "EMBED", "small", "MODEL", "m")


def test_get_computes_and_keeps_nothing(run):
    blob = run("EMBCACHE.GET", "emb", "TEXT", TEXT)
    numbers = struct.unpack("<64f", blob)
    assert sum(x * x for x in numbers) == pytest.approx(1, abs=1e-3)
    assert [float(x) for x in run("EMBCACHE.GET", "emb", "TEXT", TEXT, "AS", "VALUES")] == pytest.approx(numbers, rel=1e-6)
    assert len(run("EMBCACHE.GET", "emb", "TEXT", TEXT, "AS", "FP16")) == 128
    told = shown(run("EMBCACHE.INFO", "emb"))
    assert (told[b"entries"], told[b"misses"]) == (0, 3)
    # A digest is of a text that nobody knows.
    assert run("EMBCACHE.GET", "emb", "DIGEST", "0" * 64) is None


def test_fetch_keeps_what_it_computed(run):
    computed = run("EMBCACHE.GET", "emb", "TEXT", TEXT)
    before = embedded(run)
    for _ in range(3):
        told = shown(run("EMBCACHE.FETCH", "emb", "TEXT", TEXT))
        assert (told[b"status"], told[b"vector"]) == (b"HIT", computed)
    assert run("EMBCACHE.GET", "emb", "TEXT", TEXT) == computed
    assert embedded(run) == before + 1
    assert shown(run("EMBCACHE.INFO", "emb"))[b"entries"] == 1


def test_set_without_a_vector(run):
    assert run("EMBCACHE.SET", "emb", "TEXT", TEXT, "EX", 100) == b"OK"
    before = embedded(run)
    assert len(run("EMBCACHE.GET", "emb", "TEXT", TEXT)) == 256
    assert embedded(run) == before
    run("EMBCACHE.CREATE", "plain", "MODEL", "m", "DIM", 2)
    for key, subject in (("plain", ["TEXT", TEXT]), ("nowhere", ["TEXT", TEXT]), ("emb", ["DIGEST", "0" * 64])):
        with pytest.raises(redis.ResponseError, match="and a vector, are needed"):
            run("EMBCACHE.SET", key, *subject)
    assert run("EMBCACHE.GET", "plain", "TEXT", TEXT) is None
    assert b"LEAD" in run("EMBCACHE.FETCH", "plain", "TEXT", TEXT)


def test_mget_computes_and_keeps_nothing(run):
    kept, other = TEXT, "ij kl"
    run("EMBCACHE.SET", "emb", "TEXT", kept)
    before = embedded(run)
    one, two, again, unread = run("EMBCACHE.MGET", "emb", "TEXTS", 4, kept, other, other, LONG)
    # Equal texts of one command are one pass; what the model does not read is null beside the others.
    assert embedded(run) == before + 1
    assert (one, two, again) == (run("EMBCACHE.GET", "emb", "TEXT", kept), run("EMBCACHE.GET", "emb", "TEXT", other), two)
    assert unread is None
    assert shown(run("EMBCACHE.INFO", "emb"))[b"entries"] == 1
    assert run("EMBCACHE.MGET", "emb", "DIGESTS", 1, "0" * 64) == [None]
    with pytest.raises(redis.ResponseError, match="TOOBIG.*texts to embed"):
        run("EMBCACHE.MGET", "emb", "TEXTS", 1_001, *(f"{TEXT} {n}" for n in range(1_001)))


def test_mgetex_keeps_what_it_computed(run):
    run("EMBCACHE.SET", "emb", "TEXT", TEXT)
    asked = ["TEXTS", 3, TEXT, "ij kl", LONG]
    one, two, unread = run("EMBCACHE.MGETEX", "emb", *asked, "EX", 100)
    assert (len(one), len(two), unread) == (256, 256, None)
    before = embedded(run)
    assert run("EMBCACHE.MGET", "emb", "TEXTS", 2, TEXT, "ij kl") == [one, two]
    assert embedded(run) == before
    assert shown(run("EMBCACHE.INFO", "emb"))[b"entries"] == 2
    keys = run("KEYS", "{emb}*")
    assert len(keys) == 2 and all(0 < run("TTL", key) <= 100 for key in keys)
    # In the past there is nothing to keep: what is there is answered and removed.
    assert run("EMBCACHE.MGETEX", "emb", "TEXTS", 2, TEXT, "zz", "PXAT", 1) == [one, None]
    assert shown(run("EMBCACHE.INFO", "emb"))[b"entries"] == 1


def test_mset_without_vectors(run):
    given = struct.pack("<64f", *([1.0] + [0.0] * 63))
    assert run("EMBCACHE.MSET", "emb", 3, "TEXT", TEXT, "TEXT", "ij", "FP32", given, "TEXT", "kl", "EX", 100) == 3
    before = embedded(run)
    assert run("EMBCACHE.GET", "emb", "TEXT", "ij") == given
    assert len(run("EMBCACHE.GET", "emb", "TEXT", TEXT)) == len(run("EMBCACHE.GET", "emb", "TEXT", "kl")) == 256
    assert embedded(run) == before
    run("EMBCACHE.CREATE", "plain", "MODEL", "m", "DIM", 2)
    for command in (
        ["emb", 2, "TEXT", "mm", "TEXT", LONG],
        ["emb", 2, "TEXT", "mm", "DIGEST", "0" * 64],
        ["plain", 1, "TEXT", "mm", "EX", 10],
        ["nowhere", 1, "TEXT", "mm", "EX", 10],
    ):
        with pytest.raises(redis.ResponseError, match="not embedded|needs a vector"):
            run("EMBCACHE.MSET", *command)
    assert shown(run("EMBCACHE.INFO", "emb"))[b"entries"] == 3
    assert run("EMBCACHE.MGET", "plain", "TEXTS", 1, "mm") == [None]


@pytest.mark.parametrize("name", ["GET", "SET", "FETCH"])
def test_what_the_model_does_not_read_is_refused(run, name):
    for text in (LONG, "สวัสดี", " "):
        with pytest.raises(redis.ResponseError, match="not embedded"):
            run(f"EMBCACHE.{name}", "emb", "TEXT", text)
    assert run("DBSIZE") == 1


def test_multi_and_scripts(server, run):
    client = server.client()
    script = "return redis.call('EMBCACHE.FETCH', KEYS[1], 'TEXT', ARGV[1])"
    assert b"HIT" in client.eval(script, 1, "emb", TEXT)
    pipeline = client.pipeline(transaction=True)
    pipeline.execute_command("EMBCACHE.GET", "emb", "TEXT", f"{TEXT} ij")
    pipeline.execute_command("EMBCACHE.SET", "emb", "TEXT", f"{TEXT} kl")
    blob, stored = pipeline.execute()
    assert (len(blob), stored) == (256, b"OK")
    assert shown(run("EMBCACHE.INFO", "emb"))[b"entries"] == 2


def test_without_memory_nothing_is_kept_and_get_goes_on(run):
    run("CONFIG", "SET", "maxmemory-policy", "noeviction")
    run("CONFIG", "SET", "maxmemory", 1)
    for name in ("FETCH", "SET"):
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            run(f"EMBCACHE.{name}", "emb", "TEXT", TEXT)
    assert len(run("EMBCACHE.GET", "emb", "TEXT", TEXT)) == 256


def test_what_was_computed_is_replicated_and_saved(fleet, option):
    both = pair(fleet, appendonly="yes", **option)
    client = both.primary.client()
    client.execute_command("EMBCACHE.CREATE", "emb", "EMBED", "small", "QUANT", "Q8")
    for number, how in enumerate(("FETCH", "SET")):
        client.execute_command(f"EMBCACHE.{how}", "emb", "TEXT", f"{TEXT} {chr(97 + number)}")
    both.assert_equal()
    replica = both.replica.client()
    assert replica.execute_command("EMBCACHE.GET", "emb", "TEXT", f"{TEXT} a") == client.execute_command(
        "EMBCACHE.GET", "emb", "TEXT", f"{TEXT} a"
    )
    assert len(replica.execute_command("EMBCACHE.GET", "emb", "TEXT", "zz yy")) == 256
    digest = both.primary.digest()
    client.execute_command("DEBUG", "LOADAOF")
    assert both.primary.digest() == digest


def test_many_texts_are_read_in_slices(fleet, option):
    """Words are looked up for one text at a time, between other clients' commands: counts, which no machine changes."""
    server = fleet.launch(**option, llmcache__check_work="yes")
    count = 1_000
    texts = [" ".join(["ab", "cd", "ef"] * 10 + [f"n{at}"]) for at in range(count)]
    with server.wire(timeout=120) as wire:

        def longest() -> int:
            info = server.info()
            assert int(info["llmcache_bounds_broken"]) == 0
            return int(info["llmcache_last_command_longest_run"])

        wire("EMBCACHE.CREATE", "emb", "EMBED", "small")
        wire("RAG.CREATE", "docs", "EMBED", "small")
        both = [part for text in texts for part in ("TEXT", text)]
        documents = [part for at, text in enumerate(texts) for part in (f"d{at}", "TEXT", text)]
        commands = [
            ("EMBCACHE.MGET", "emb", "TEXTS", count, *texts),
            ("EMBCACHE.MGETEX", "emb", "TEXTS", count, *texts, "EX", 1_000),
            ("EMBCACHE.MSET", "emb", count, *both),
            ("RAG.MADD", "docs", count, *documents),
            # All are there by now.
            ("EMBCACHE.MGET", "emb", "TEXTS", 10 * count, *(texts * 10)),
        ]
        replies = []
        for command in commands:
            reply = wire(*command)
            assert not isinstance(reply, Failure), reply.text
            assert 0 < longest() <= LONGEST_RUN, command[0]
            replies.append(reply)
        computed, kept, stored, added, all_of_them = replies
        assert stored == len(added) == count
        assert None not in computed and computed == kept and all_of_them == computed * 10


def test_who_waits_in_a_transaction_is_bounded(fleet, option):
    server = fleet.launch(**option)
    with server.wire() as wire:
        wire("EMBCACHE.CREATE", "emb", "EMBED", "small")
        texts = [f"{TEXT} {at}" for at in range(900)]
        for command in (
            ("EMBCACHE.MGET", "emb", "TEXTS", 900, *texts),
            ("EMBCACHE.MGETEX", "emb", "TEXTS", 900, *texts, "EX", 9),
            ("EMBCACHE.MSET", "emb", 900, *(part for text in texts for part in ("TEXT", text))),
        ):
            wire("MULTI")
            wire(*command)
            (reply,) = wire("EXEC")
            assert isinstance(reply, Failure) and reply.word == "EMBEDLONG", reply
        assert wire("DBSIZE") == 1
