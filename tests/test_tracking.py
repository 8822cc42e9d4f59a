"""Client-side caching: who read a container by its name is told when a key of it goes, comes or changes by itself."""

import pytest
from harness.replication import pair
from harness.vectors import fp32
from harness.wire import Failure

V = fp32([1, 0, 0])
# How an entry is stored in `own`, and how it is read; of which entry a client may keep a copy.
FAMILIES = {
    "answer": (("LLMCACHE.SETSEM", "own", "PROMPT", "p", "RESPONSE", "r", *V), ("LLMCACHE.GET", "own", "PROMPT", "p")),
    "answer by meaning": (("LLMCACHE.SETSEM", "own", "PROMPT", "p", "RESPONSE", "r", *V), ("LLMCACHE.GETSEM", "own", *V)),
    "entry": (("LLMCACHE.SET", "own", "PROMPT", "p", "RESPONSE", "r", "ID", "x"), ("LLMCACHE.ENTRY", "own", "x")),
    "document": (("RAG.ADD", "own", "x", *V, "TEXT", "t"), ("RAG.GET", "own", "x")),
    "search": (("RAG.ADD", "own", "x", *V, "TEXT", "t"), ("RAG.SEARCH", "own", *V)),
    "embedding": (("EMBCACHE.SET", "own", "TEXT", "t", *V, "MODEL", "m"), ("EMBCACHE.GET", "own", "TEXT", "t", "MODEL", "m")),
    "chunk": (("KVCHUNK.PUT", "own", "HASH", "h", "PAYLOAD", 1, "x"), ("KVCHUNK.GET", "own", "68")),
    "session": (("SESSION.APPEND", "own", "MSG", "user", "hi"), ("SESSION.GET", "own", "SEQ", 1)),
}
families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def server(emptied):
    return emptied


class Reader:
    """A client that tracks what it reads: told by a push of RESP3, or through a connection that subscribes."""

    def __init__(self, server, resp: int, read):
        self.wire = self.told = server.wire(resp)
        self.read, self.resp = read, resp
        if resp == 2:
            self.told = server.wire()
            number = self.told("CLIENT", "ID")
            assert self.told("SUBSCRIBE", "__redis__:invalidate")
            assert self.wire("CLIENT", "TRACKING", "ON", "REDIRECT", number) == "OK"
        else:
            assert self.wire("CLIENT", "TRACKING", "ON") == "OK"

    def look(self):
        reply = self.wire(*self.read)
        if isinstance(reply, Failure):
            # The key of a session is its own, and may hold something else by now.
            assert reply.word == "WRONGTYPE" and self.read[0].startswith("SESSION")
            return None
        return reply

    def next_invalidation(self):
        """The keys that it is told of next."""
        return self.told.read()[-1]

    def close(self):
        self.wire.close()
        self.told.close()


def keys_of(client):
    """The keys of entries; of a session its own."""
    keys = client.keys("*")
    return [key for key in keys if key != b"own"] or keys


def store(client, family, expiry=()):
    if family == "chunk":
        client.execute_command("KVCHUNK.CREATE", "own")
    if family == "session" and expiry:
        client.execute_command(*FAMILIES[family][0])
        client.pexpire("own", expiry[1])
    else:
        client.execute_command(*FAMILIES[family][0], *expiry)



def reader_of_what_expires(server, resp, family, client, arrive=lambda: None):
    """Stores an entry that expires soon, and a client that has read it before: later where the machine is slow."""
    for soon_ms in (300, 1_500, 8_000):
        reader = Reader(server, resp, FAMILIES[family][1])
        store(client, family, ("PX", soon_ms))
        arrive()
        if reader.look():
            return reader
        reader.close()
        client.flushall()
    raise AssertionError("8 s are not enough to read what was stored")


HOW = {
    "it expires": None,
    "its key is deleted": lambda client: client.delete(*keys_of(client)),
    "its key is unlinked by a script": lambda client: client.eval("return redis.call('UNLINK', KEYS[1])", 1, *keys_of(client)),
    "its key is overwritten": lambda client: client.set(keys_of(client)[0], "else"),
    "its key is renamed": lambda client: client.rename(keys_of(client)[0], "elsewhere"),
    "its key is moved": lambda client: client.move(keys_of(client)[0], 9),
}


@families
@pytest.mark.parametrize("how", HOW)
def test_readers_are_told_when_what_they_read_is_gone(server, resp, family, how):
    client = server.client()
    if HOW[how] is None:
        reader = reader_of_what_expires(server, resp, family, client)
    else:
        store(client, family)
        reader = Reader(server, resp, FAMILIES[family][1])
        assert reader.look()
        HOW[how](client)
    try:
        assert reader.next_invalidation() == [b"own"]
        assert not reader.look()
    finally:
        reader.close()


@families
def test_readers_are_told_of_evictions(fleet, resp, family):
    server = fleet.launch(maxmemory_policy="volatile-ttl")
    client = server.client()
    store(client, family, ("EX", 1_000) if family != "session" else ("PX", 1_000_000))
    reader = Reader(server, resp, FAMILIES[family][1])
    assert reader.look()
    with server.wire() as wire:
        assert wire("CONFIG", "SET", "maxmemory", 1) == "OK"
        assert wire("SET", "x", "y").word == "OOM"
        assert reader.next_invalidation() == [b"own"]
        assert wire("CONFIG", "SET", "maxmemory", 0) == "OK"
    reader.close()


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "session"])
def test_readers_of_a_miss_are_told_when_the_entry_comes(server, resp, family):
    """By RESTORE under its own name, which is how a slot moves; and when its deadline is changed there."""
    client = server.client()
    store(client, family)
    (key,) = keys_of(client)
    dump = client.dump(key)
    client.delete(key)
    reader = Reader(server, resp, FAMILIES[family][1])
    try:
        assert not reader.look()
        client.restore(key, 0, dump)
        assert reader.next_invalidation() == [b"own"]
        assert reader.look()
        if family != "chunk":
            client.pexpire(key, 1_000_000)
            assert reader.next_invalidation() == [b"own"]
    finally:
        reader.close()


@families
def test_readers_of_a_replica_are_told(fleet, resp, family):
    both = pair(fleet)
    client = both.primary.client()
    reader = reader_of_what_expires(both.replica, resp, family, client, both.catch_up)
    assert reader.next_invalidation() == [b"own"]
    assert not reader.look()
    reader.close()


def test_what_was_watched_before_a_store_is_not_changed_after_it(server):
    """A store that replaces tells at once, so that no transaction of a client that watches later is undone."""
    with server.wire() as wire, server.wire() as other:
        for number in range(200):
            other("LLMCACHE.SET", "own", "PROMPT", "p", "RESPONSE", number)
            wire("WATCH", "own")
            assert wire("LLMCACHE.GET", "own", "PROMPT", "p") == b"%d" % number
            wire("MULTI")
            wire("PING")
            assert wire("EXEC") == ["PONG"]
