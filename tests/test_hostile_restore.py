"""100,000 damaged DUMP payloads: each is an error or a value that works, never a crash.

The server's own checksum is switched off, and in half of the rounds the module's checksums are made
right again, so that the damage reaches the code behind them.
"""

import base64
import json
import random
from pathlib import Path

import pytest
from harness.cache import Cache
from harness.dump import Payload, damaged, resealed, sections
from harness.primary import Primary
from harness.vectors import fp32, unit
from harness.wire import Failure

ROUNDS = 8_000
OLD = json.loads((Path(__file__).parent / "fixtures/dumps_of_the_first_release.json").read_text())["dumps"]
DIM = 8


def make_cache(client, name, count):
    cache = Cache(client, name)
    cache.create(dim=DIM, threshold="0.7", maxentries=1_000, model="m", ttl=1_000)
    cache.ids = cache.fill(count, dim=DIM, size=20, meta={"year": 2024, "s": "x"}, tags=["t", "u"])
    cache.ids.append(cache.setsem("named", "N", unit(1, DIM), id="doc:1", scope="s", context="c"))
    return cache


def canary(server):
    with server.wire() as wire:
        keys = sorted(wire("KEYS", "{canary}*") + [b"canary", b"text"])
        return [str(d) for d in wire.pipeline(("DEBUG", "DIGEST-VALUE", key) for key in keys)]


@pytest.fixture
def server(fleet):
    """Takes any payload, and writes strings as they are: compressed ones would hide the sections."""
    server = fleet.launch(rdbcompression="no")
    assert server.client().execute_command("DEBUG", "SET-SKIP-CHECKSUM-VALIDATION", 1) == b"OK"
    return server


@pytest.mark.parametrize("seal", ["resealed", "as is"])
@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("kind", ["cache", "old cache", "entry"])
def test_damaged_payloads(server, kind, half, seal):
    rng = random.Random(f"{kind} {seal} {half}")
    client = server.client()
    faq = make_cache(client, "faq", 12)
    other = make_cache(client, "canary", 20)
    client.set("text", "unchanged")
    intact = canary(server)

    source = faq.key_of(faq.ids[-1 if half else 0]) if kind == "entry" else "faq"
    payload = Payload.parse(base64.b64decode(OLD["faq"]) if kind == "old cache" else client.dump(source))
    where = sections(payload.body)
    # Entries have no sections; a dump of the first release holds a block of slots and two of a graph.
    assert len(where) == {"cache": 1, "old cache": 4, "entry": 0}[kind]
    places = [source, faq.key_of("0" * 32), "elsewhere"] if kind == "entry" else [source, "elsewhere"]

    def hostile():
        for _ in range(ROUNDS):
            body = payload.body
            for _ in range(rng.choice((1, 1, 1, 2, 5))):
                body = damaged(body, rng) or body
            if seal == "resealed":
                body = resealed(body, [(a, b) for a, b in where if b <= len(body)])
            yield ("RESTORE", rng.choice(places), rng.choice((0, 100_000)), payload.with_body(body), "REPLACE")

    with server.wire() as wire:
        replies = []
        for batch in batched(hostile(), 500):
            replies += wire.pipeline(batch)
            for name in ("faq", "elsewhere"):
                exercise(wire, name)
        assert wire("PING") == "PONG"
        words = {reply.word if isinstance(reply, Failure) else reply for reply in replies}
        assert words <= {"OK", "ERR"}, words
        assert "ERR" in words
        assert len(replies) == ROUNDS

    assert canary(server) == intact
    assert other.found_by_meaning(range(20), dim=DIM) == set(range(20))
    with server.wire() as wire:
        assert wire("RESTORE", "control", 0, client.dump("canary")) == "OK"
        wire("DEL", "control")
        # Whatever got in can be saved and loaded again.
        digest = server.digest()
        assert wire("DEBUG", "RELOAD") == "OK"
        assert server.digest() == digest


def exercise(wire, name):
    """Uses whatever stands under this name now; every reply is fine, a lost connection is not."""
    vector = fp32(unit(1, DIM))
    wire("LLMCACHE.INFO", name)
    wire("LLMCACHE.GETSEM", name, "PROMPT", "prompt 1", *vector, "COUNT", 10, "THRESHOLD", -1)
    wire("LLMCACHE.GETSEM", name, *vector, "SCOPE", "s", "CONTEXT", "c", "FILTER", ".year > 1", "EXPLAIN")
    wire("LLMCACHE.SCAN", name, 0, "COUNT", 100)
    wire("LLMCACHE.ENTRY", name, "doc:1")
    wire("LLMCACHE.SETSEM", name, "PROMPT", "prompt 2", "RESPONSE", "R", *vector)
    wire("MEMORY", "USAGE", name)
    wire("DEBUG", "DIGEST-VALUE", name)


def batched(items, size):
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@pytest.mark.parametrize("kind", ["cache", "entry"])
def test_every_truncation(server, kind):
    client = server.client()
    faq = make_cache(client, "faq", 5)
    payload = Payload.parse(client.dump("faq" if kind == "cache" else faq.key_of(faq.ids[-1])))
    accepted = []
    with server.wire() as wire:
        for end in range(len(payload.body)):
            reply = wire("RESTORE", "target", 0, payload.with_body(payload.body[:end]))
            if reply == "OK":
                accepted.append(end)
                wire("DEL", "target")
            else:
                assert reply.word == "ERR", f"cut at {end}: {reply}"
        assert wire("RESTORE", "target", 0, payload.with_body(payload.body)) == "OK"
    # With two bytes cut off, the footer's two make up a whole value again, its last byte wrong: for a
    # cache that costs the index, which is filled again from the entries.
    assert accepted in ([], [len(payload.body) - 2] if kind == "cache" else [])


@pytest.mark.parametrize("command", ["LLMCACHE._CREATE", "LLMCACHE._ENTRY", "LLMCACHE._CONFIG"])
def test_internal_commands_with_any_bytes(server, command):
    client = server.client()
    faq = make_cache(client, "faq", 5)
    uid = faq.uid
    blobs = [Payload.parse(client.dump(key)).body for key in ("faq", faq.key_of(faq.ids[0]))]
    cuts = [blob[a:b] for blob in blobs for a, b in [*sections(blob), (2, len(blob) - 1)]]
    rng = random.Random(command)

    def calls():
        for _ in range(5_000):
            blob = damaged(rng.choice(cuts), rng) if rng.random() < 0.8 else rng.randbytes(rng.randrange(200))
            key = rng.choice(["new", "faq", f"{{faq}}:{uid}:{'0' * 32}"])
            tail = {"LLMCACHE._CREATE": [blob], "LLMCACHE._ENTRY": [blob, *rng.choice([[], ["PXAT", 1 << 40]])], "LLMCACHE._CONFIG": [rng.choice([b"THRESHOLD", blob]), blob]}
            yield (command, key, *tail[command])

    with server.wire() as wire:
        assert isinstance(wire(*next(calls())), Failure), "nobody but a primary may"
    dumps = {key: client.dump(key) for key in client.keys()}
    with Primary(server) as primary:
        primary.send(*(("RESTORE", key, 0, dump) for key, dump in dumps.items()))
        before = server.digest()
        refused = primary.refused(calls())
        assert refused > 0
        if refused == 5_000:
            assert server.digest() == before
    with server.wire() as wire:
        exercise(wire, "faq")
        assert wire("DEBUG", "RELOAD") == "OK"
