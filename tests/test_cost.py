"""Every command with arguments as bad as it allows, compared with what its page says of its cost.

`llmcache.check-work yes` has the server count keys opened, steps of walks and bytes of the reply of each command,
and note where a command did more than `src/command/table/cost.rs` states. Sizes are scaled so that the suite stays
short; the counts are what gates, not the time.
"""

from __future__ import annotations

import struct

import pytest
from harness.wire import Failure

CHUNKS = 3_000
MESSAGES = 3_000
ROWS = 200
DIM = 8


def v(at: int = 0) -> list:
    return ["VALUES", DIM, 1, *(((at >> bit) % 7) / 10 for bit in range(DIM - 1))]


def tokens(chunks: int, token: int = 7) -> bytes:
    return struct.pack("<I", token) * 16 * chunks


class World:
    """A server with something in every kind of container."""

    def __init__(self, wire):
        self.wire = wire
        for at in range(ROWS):
            wire("LLMCACHE.SETSEM", "faq", "PROMPT", f"question {at}", "RESPONSE", b"r" * 100, *v(at), "META", '{"n":%d}' % at)
            wire("RAG.ADD", "docs", f"d{at}", *v(at), "TEXT", "text", "META", '{"n":%d}' % at)
        wire("LLMCACHE.CREATE", "audited", "MAXERROR", "0.05", "NEARMISSES", 10_000, "GUARD", "OFF")
        wire("LLMCACHE.SETSEM", "audited", "PROMPT", "stored", "RESPONSE", "r", *v(1))
        wire("EVAL", "for i = 1, 5000 do redis.call('LLMCACHE.GETSEM', KEYS[1], unpack(ARGV)) end", 1, "audited", *v(1), "PROMPT", "q" * 300)
        wire("EMBCACHE.CREATE", "emb", "MODEL", "m", "DIM", DIM)
        self.ids = [id_.decode() for id_ in wire("LLMCACHE.SCAN", "faq", 0, "COUNT", 1000)[1]]
        texts = [part for at in range(ROWS) for part in ("TEXT", f"t{at}", *v(at))]
        wire("EMBCACHE.MSET", "emb", ROWS, *texts)
        wire("KVCHUNK.CREATE", "ns", "CHUNK", 16)
        payloads = ["PAYLOADS", CHUNKS, *[1, "x"] * CHUNKS]
        wire("KVCHUNK.MPUT", "ns", "TOKENS", tokens(CHUNKS), *payloads)
        self.digests = [d.decode() for d in wire("KVCHUNK.DIGESTS", "ns", "TOKENS", tokens(CHUNKS))]
        for first in range(0, MESSAGES, 500):
            parts = []
            for at in range(first, first + 500):
                link = "CALL" if at % 2 == 0 else "RESULT"
                parts += ["MSG", "tool", "x", "ID", f"m{at}", link, "one", *v(at)]
            wire("SESSION.APPEND", "s", "OWNER", "o", *parts)
        self.stream = wire("SESSION.BEGIN", "live", "assistant")

    def lease(self) -> str:
        return self.wire("LLMCACHE.FETCH", "faq", "PROMPT", "new", *v(3), "THRESHOLD", 1)

    def _token(self, reply) -> str:
        pairs = dict(zip(reply[::2], reply[1::2]))
        return pairs.get(b"token", b"0000000000000000").decode()


QUESTIONS = 100


def worst(world: World) -> dict[str, list]:
    """The arguments of each command, several commands where one alone is not the worst."""
    d, ids = world.digests, world.ids
    many = ["PROMPT", "p", "RESPONSE", "r" * 10_000]
    asked = [part for at in range(QUESTIONS) for part in (*v(at), "PROMPT", f"question {at}")]
    texts = ["TEXTS", ROWS, *(f"t{at}" for at in range(ROWS))]
    lines = ['{"role":"user","content":"x","id":"l%d"}' % at for at in range(1024)]
    seq, token = world.stream[0], world.stream[1].decode() if world.stream[1] else "0"
    everything = ["TOKENS", tokens(CHUNKS)]
    return {
        "LLMCACHE.CREATE": ["c2", "DIM", DIM],
        "LLMCACHE.SETSEM": ["faq", *many, *v(5), "TAGS", 64, *(f"t{n}" for n in range(64))],
        "LLMCACHE.SET": ["faq", *many],
        "LLMCACHE.GETSEM": ["faq", *v(1), "COUNT", 1000, "THRESHOLD", -1, "GUARD", "OFF", "EF", 10000],
        "LLMCACHE.MGETSEM": ["faq", QUESTIONS, *asked, "COUNT", 100, "THRESHOLD", -1, "GUARD", "STRICT"],
        "LLMCACHE.GET": ["faq", "PROMPT", "question 1"],
        "LLMCACHE.ENTRY": ["faq", ids[0]],
        "LLMCACHE.EXPIRE": ["faq", ids[0], "EX", 100],
        "LLMCACHE.SCAN": ["faq", 0, "COUNT", 10000, "FILTER", ".n >= 0"],
        "LLMCACHE.CONFIG": ["faq", "SET", "threshold", "0.9"],
        "LLMCACHE.INFO": ["faq"],
        "LLMCACHE.STATS": ["faq"],
        "LLMCACHE.FETCH": ["faq", "PROMPT", "question 1", *v(1)],
        "LLMCACHE.FAIL": ["faq", "0" * 16],
        "LLMCACHE.EXTEND": ["faq", "0" * 16, 1000],
        "LLMCACHE.FEEDBACK": ["audited", "RESET"],
        "LLMCACHE.NEARMISSES": ["audited", "COUNT", 10000],
        "LLMCACHE.INVALIDATE": ["faq", "FILTER", ".n >= 0", "DRYRUN"],
        "LLMCACHE.DEL": ["faq", *ids[:100]],
        "EMBCACHE.CREATE": ["e2", "MODEL", "m", "DIM", DIM],
        "EMBCACHE.SET": ["emb", "TEXT", "t", *v(1)],
        "EMBCACHE.GET": ["emb", "TEXT", "t1", "AS", "VALUES"],
        "EMBCACHE.MGET": ["emb", *texts, "AS", "VALUES"],
        "EMBCACHE.MGETEX": ["emb", *texts, "EX", 100],
        "EMBCACHE.MSET": ["emb", ROWS, *(part for at in range(ROWS) for part in ("TEXT", f"t{at}", *v(at)))],
        "EMBCACHE.FETCH": ["emb", "TEXT", "t1"],
        "EMBCACHE.FAIL": ["emb", "0" * 16],
        "EMBCACHE.EXTEND": ["emb", "0" * 16, 1000],
        "EMBCACHE.INFO": ["emb"],
        "EMBCACHE.DEL": ["emb", *texts],
        "RAG.CREATE": ["r2", "DIM", DIM],
        "RAG.ADD": ["docs", "d1", *v(1), "TEXT", "t" * 10_000],
        "RAG.MADD": ["docs", ROWS, *(part for at in range(ROWS) for part in (f"d{at}", *v(at), "TEXT", "t"))],
        "RAG.SEARCH": ["docs", *v(1), "COUNT", 1000, "MMR", 0.5, "EF", 10000],
        "RAG.GET": ["docs", "d1"],
        "RAG.MGET": ["docs", "IDS", ROWS, *(f"d{at}" for at in range(ROWS)), "RETURN", 2, "id", "vector"],
        "RAG.SCAN": ["docs", 0, "COUNT", 10000, "FILTER", ".n >= 0"],
        "RAG.INFO": ["docs"],
        "RAG.DEL": ["docs", *(f"d{at}" for at in range(100))],
        "KVCHUNK.CREATE": ["ns2"],
        "KVCHUNK.PUT": ["ns", "TOKENS", tokens(CHUNKS), "PAYLOAD", 1, "y"],
        "KVCHUNK.MPUT": ["ns", *everything, "PAYLOADS", CHUNKS, *[1, "x"] * CHUNKS],
        "KVCHUNK.MATCH": ["ns", *everything, "LEASE", 1000],
        "KVCHUNK.FETCH": ["ns", *everything, "LEASE", 1000],
        "KVCHUNK.GET": ["ns", d[-1]],
        "KVCHUNK.MISSING": ["ns", *everything],
        "KVCHUNK.FIND": ["ns", *everything],
        "KVCHUNK.TOUCH": ["ns", *d],
        "KVCHUNK.PIN": ["ns", *d, "PREFIX"],
        "KVCHUNK.UNPIN": ["ns", d[0], "SUBTREE"],
        "KVCHUNK.LEASE": ["ns", 1000, *d],
        "KVCHUNK.RELEASE": ["ns", 1 << 62],
        "KVCHUNK.SCAN": ["ns", 0, "COUNT", 10000],
        "KVCHUNK.INFO": ["ns"],
        "KVCHUNK.STATS": ["ns"],
        "KVCHUNK.VERIFY": ["ns", "COUNT", 10000],
        "KVCHUNK.BUDGET": ["ns", 1 << 30],
        "KVCHUNK.DIGESTS": ["ns", *everything],
        "KVCHUNK.DEL": ["ns", d[0], "SUBTREE"],
        "SESSION.APPEND": ["s2", *(part for at in range(1024) for part in ("MSG", "user", "x", "ID", f"i{at}"))],
        "SESSION.WINDOW": ["s", "PAIRS"],
        "SESSION.RANGE": ["s", "-", "+"],
        "SESSION.GET": ["s", "ID", "m10"],
        "SESSION.LEN": ["s"],
        "SESSION.INFO": ["s"],
        "SESSION.EXPIRE": ["s", "TTL", 1000],
        "SESSION.EDIT": ["s", 5, "y" * 10_000],
        "SESSION.RECALL": ["s", *v(1), "COUNT", 100, "AROUND", 20],
        "SESSION.EXPORT": ["s"],
        "SESSION.FORK": ["s", "s3"],
        "SESSION.LIST": ["o", "COUNT", 10000],
        "SESSION.LOAD": ["s4", *lines],
        "SESSION.COMPACT": ["s", "UPTO", 1000, "summary"],
        "SESSION.DEL": ["s", *range(1001, 1500)],
        "SESSION.POP": ["s", "COUNT", 500],
        "SESSION.TRIM": ["s", "MAXLEN", 100],
        "SESSION.CLEAR": ["s"],
        "SESSION.BEGIN": ["live2", "assistant"],
        "SESSION.CHUNK": ["live", seq, token, 0, "x" * 10_000],
        "SESSION.FOLLOW": ["live", seq, 0],
        "SESSION.STOP": ["live", seq],
        "SESSION.END": ["live", seq, token],
        "LLMCACHE.DROP": ["faq"],
        "RAG.DROP": ["docs"],
    }


@pytest.fixture
def server(fleet):
    return fleet.launch(llmcache__check_work="yes")


def counted(server) -> tuple[int, int, int, int]:
    info = server.info()
    names = ("bounds_broken", "last_command_keys", "last_command_steps", "last_command_reply_bytes")
    return tuple(int(info[f"llmcache_{name}"]) for name in names)


def test_every_command_does_what_its_page_says_at_most(server):
    with server.wire() as wire:
        known = {name.decode().upper() for name in wire("COMMAND", "LIST", "FILTERBY", "MODULE", "llmcache")}
        commands = worst(World(wire))
        public = {name for name in known if "._" not in name}
        assert public - set(commands) == set(), "commands without worst arguments in this file"
        assert set(commands) - public == set()
        assert counted(server)[0] == 0, "filling broke a bound"
        others = [
            ("RAG.DEL", ["docs", "FILTER", ".n >= 0", "DRYRUN"]),
            ("RAG.DEL", ["docs", "TAG", "none"]),
            ("KVCHUNK.FETCH", ["ns", "TOKENS", tokens(CHUNKS), "SPARSE", "LEASE", 1000]),
        ]
        for name, arguments in (*others, *commands.items()):
            reply = wire(name, *arguments)
            broken, *did = counted(server)
            assert broken == 0, f"{name} broke its bound: {did}, see the server's log"
            assert did[0] + did[1] + did[2] > 0, f"{name} was not watched"
            if isinstance(reply, Failure):
                assert reply.word in {"TOOBIG", "LEASELOST"}, f"{name}: {reply.text}"


def test_twice_as_many_things_cost_no_more_than_twice_as_much(server):
    """What was n^2: the steps of twice as much are about twice the steps."""
    with server.wire() as wire:
        steps = {}
        for chunks in (200, 400):
            name = f"ns{chunks}"
            wire("KVCHUNK.CREATE", name, "CHUNK", 16)
            wire("KVCHUNK.MPUT", name, "TOKENS", tokens(chunks), "PAYLOADS", chunks, *[1, "x"] * chunks)
            put = sum(counted(server)[1:3])
            wire("KVCHUNK.FIND", name, "TOKENS", tokens(chunks))
            find = sum(counted(server)[1:3])
            digests = wire("KVCHUNK.DIGESTS", name, "TOKENS", tokens(chunks))
            wire("KVCHUNK.TOUCH", name, *digests)
            touch = sum(counted(server)[1:3])
            wire("KVCHUNK.PIN", name, *digests, "PREFIX")
            pin = sum(counted(server)[1:3])
            session = f"s{chunks}"
            parts = []
            for at in range(chunks):
                parts += ["MSG", "tool", "x", "CALL" if at < chunks // 2 else "RESULT", "one"]
            wire("SESSION.APPEND", session, *parts)
            wire("SESSION.WINDOW", session, "PAIRS")
            window = sum(counted(server)[1:3])
            steps[chunks] = {"MPUT": put, "FIND": find, "TOUCH": touch, "PIN": pin, "WINDOW": window}
        for name, once in steps[200].items():
            twice = steps[400][name]
            assert 0 < twice <= 2.5 * once + 100, f"{name}: {once} steps, and {twice} for twice as much"
