"""Texts of an index with WORDS are kept packed: what is read is what was stored, in fewer bytes, everywhere they go."""

import random
import zlib

import pytest
from harness.dump import Payload
from harness.persistence import save, wait_for_rewrite
from harness.replication import pair
from harness.waiting import wait_until

DRAW = random.Random(20)
WORDS = ["pump", "boiler", "valve", "lime", "shield", "wing", "heat", "plane", "tiles", "pressure"]
PROSE = " ".join(DRAW.choice(WORDS) for _ in range(200)).encode()
TEXTS = {
    "short": b"a pump",
    "at the least": PROSE[:64],
    "below it": PROSE[:63],
    "prose": PROSE,
    "one byte": b"x" * 5_000,
    "two bytes": b"ab" * 500,
    "every byte": bytes(range(256)) * 20,
    "noise": DRAW.randbytes(4_000),
    "no UTF-8": b"pump \xff\xfe " * 100,
    "chinese": "水泵被石灰堵塞，阀门必须清洗。".encode() * 40,
    "greek": "Η αντλία του λέβητα έχει φράξει. ".encode() * 30,
    "rare": b"e" * 100_000 + bytes(range(1, 200)),
    "longest": (PROSE * 400)[: 256 << 10],
    "too long": (PROSE * 400)[: (256 << 10) + 1],
}


def as_map(reply) -> dict:
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


def fill(client, **settings) -> None:
    client.execute_command("RAG.CREATE", "docs", *(x for pair in settings.items() for x in pair))
    for name, text in TEXTS.items():
        client.execute_command("RAG.ADD", "docs", name, "NOVECTOR", "TEXT", text)


def texts(client) -> dict[str, bytes]:
    got = client.execute_command("RAG.MGET", "docs", "IDS", len(TEXTS), *TEXTS, "RETURN", 1, "text")
    return {name: as_map(one)[b"text"] for name, one in zip(TEXTS, got, strict=True)}


def key_of(client, name: str) -> bytes:
    (key,) = (key for key in client.keys() if key.endswith(b":" + name.encode()))
    return key


@pytest.fixture
def server(emptied):
    return emptied


def test_texts_are_those_that_were_stored(server):
    client = server.client()
    fill(client, WORDS="english")
    assert texts(client) == TEXTS
    (hit,) = client.execute_command("RAG.SEARCH", "docs", "WORDS", '"石灰堵塞"', "RETURN", 2, "id", "text")
    assert as_map(hit)[b"text"] == TEXTS["chinese"]
    (hit,) = client.execute_command("RAG.SEARCH", "docs", "WORDS", "φράξει", "SNIPPET", 3, "RETURN", 2, "snippet", "tokens")
    assert "<b>φράξει</b>".encode() in as_map(hit)[b"snippet"]
    # Of a text whose tokens nobody said they are told by its bytes, not by those that are kept.
    assert int(as_map(hit)[b"tokens"]) == -(-len(TEXTS["greek"]) // 4)


def test_they_take_less(server):
    client = server.client()
    fill(client, WORDS="none")
    packed = {name: client.memory_usage(key_of(client, name)) for name in TEXTS if " " not in name}
    client.flushall()
    fill(client)
    plain = {name: client.memory_usage(key_of(client, name)) for name in packed}
    assert packed["prose"] < 0.7 * plain["prose"] and packed["chinese"] < 0.9 * plain["chinese"]
    assert packed["rare"] < 0.2 * plain["rare"] and packed["longest"] < 0.7 * plain["longest"]
    assert (packed["noise"], packed["short"]) == (plain["noise"], plain["short"])


@pytest.mark.parametrize("how", ["rdb", "aof", "rewritten"])
def test_they_outlive_a_restart(fleet, how):
    server = fleet.launch(appendonly="no" if how == "rdb" else "yes", aof_use_rdb_preamble="no")
    fill(server.client(), WORDS="english")
    before = server.digest()
    if how == "rdb":
        save(server.client())
    elif how == "rewritten":
        server.client().bgrewriteaof()
        wait_for_rewrite(server.client())
    server.restart()
    assert (texts(server.client()), server.digest()) == (TEXTS, before)


def test_a_replica_has_them(fleet):
    both = pair(fleet)
    fill(both.primary.client(), WORDS="english")
    wait_until(lambda: both.replica.digest() == both.primary.digest(), "equal digests")
    assert texts(both.replica.client()) == TEXTS


def sealed(body: bytes) -> tuple[bytes, bytes]:
    """The entry in what the module wrote, and the checksum before it."""
    for start in range(len(body)):
        seal = zlib.crc32(body[start:-1]).to_bytes(4, "big")
        if seal in body[:start]:
            return body[start:-1], seal
    raise AssertionError("no entry with its checksum")


def test_damaged_ones_are_refused_or_texts(fleet):
    """The module's check of an entry comes before its use: whatever is restored can be read and found by its words."""
    server = fleet.launch(rdbcompression="no")
    client = server.client()
    client.execute_command("DEBUG", "SET-SKIP-CHECKSUM-VALIDATION", 1)
    client.execute_command("RAG.CREATE", "docs", "WORDS", "english")
    client.execute_command("RAG.ADD", "docs", "d", "NOVECTOR", "TEXT", PROSE[:300])
    key = key_of(client, "d")
    whole = Payload.parse(client.dump(key))
    entry, seal = sealed(whole.body)
    refused = 0
    with server.wire() as wire:
        for _ in range(4_000):
            damaged = bytearray(entry)
            damaged[DRAW.randrange(len(entry))] = DRAW.randrange(256)
            body = whole.body.replace(entry, bytes(damaged)).replace(seal, zlib.crc32(damaged).to_bytes(4, "big"))
            refused += wire("RESTORE", key, 0, whole.with_body(body), "REPLACE") != "OK"
            wire("RAG.SEARCH", "docs", "WORDS", "pump", "RETURN", 2, "text", "snippet")
        assert wire("PING") == "PONG"
    assert refused > 1_000
    client.restore(key, 0, whole.with_body(whole.body), replace=True)
    assert as_map(client.execute_command("RAG.GET", "docs", "d"))[b"text"] == PROSE[:300]
