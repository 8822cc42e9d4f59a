"""Every command with arguments as bad as it allows, and a server with something in every kind of container.

Sizes are those of `Size`: small ones for counts, large ones for how long others wait.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .wire import Wire

@dataclass(frozen=True)
class Size:
    """How much there is, and how much a command asks for."""

    chunks: int
    messages: int
    rows: int
    dim: int
    questions: int
    # Embeddings and documents of one batch, ids and texts of one command.
    batch: int
    # Messages of one APPEND or LOAD.
    lines: int = 1_024

    def v(self, at: int = 0) -> list:
        """A vector that is another for each number."""
        return ["FP32", struct.pack(f"<{self.dim}f", 1, *(((at >> bit % 20) % 7) / 10 for bit in range(self.dim - 1)))]


# Most steps (`Steps::weight`, some 20 ns each) that any command may do in one piece, between which no other client's
# command comes: its own call, a slice, a round, its reply.
LONGEST_RUN = 3 << 15

# For counts, and as much as the limits allow in the time of a test.
SMALL = Size(chunks=3_000, messages=3_000, rows=200, dim=8, questions=100, batch=200)
LARGE = Size(chunks=16_384, messages=20_000, rows=5_000, dim=256, questions=1_000, batch=1_000)


def tokens(chunks: int, token: int = 7) -> bytes:
    return struct.pack("<I", token) * 16 * chunks


class World:
    """A server with something in every kind of container."""

    def __init__(self, wire: Wire, size: Size):
        self.wire, self.size = wire, size
        v = size.v
        for at in range(0, size.rows, 100):
            commands = []
            for n in range(at, min(at + 100, size.rows)):
                said = ["PROMPT", f"question {n}", "RESPONSE", b"r" * 100, *v(n), "META", '{"n":%d}' % n]
                commands.append(("LLMCACHE.SETSEM", "faq", *said))
                commands.append(("RAG.ADD", "docs", f"d{n}", *v(n), "TEXT", "text", "META", '{"n":%d}' % n))
            wire.pipeline(commands)
        wire("LLMCACHE.CREATE", "audited", "MAXERROR", "0.05", "NEARMISSES", 10_000, "GUARD", "OFF")
        wire("LLMCACHE.SETSEM", "audited", "PROMPT", "stored", "RESPONSE", "r", *v(1))
        script = "for i = 1, 5000 do redis.call('LLMCACHE.GETSEM', KEYS[1], unpack(ARGV)) end"
        wire("EVAL", script, 1, "audited", *v(1), "PROMPT", "q" * 300)
        wire("EMBCACHE.CREATE", "emb", "MODEL", "m", "DIM", size.dim)
        self.ids = [id_.decode() for id_ in wire("LLMCACHE.SCAN", "faq", 0, "COUNT", 1000)[1]]
        texts = [part for at in range(size.batch) for part in ("TEXT", f"t{at}", *v(at))]
        wire("EMBCACHE.MSET", "emb", size.batch, *texts)
        wire("KVCHUNK.CREATE", "ns", "CHUNK", 16)
        prompt = tokens(size.chunks)
        payloads = ["PAYLOADS", size.chunks, *[1, "x"] * size.chunks]
        wire("KVCHUNK.MPUT", "ns", "TOKENS", prompt, *payloads)
        self.digests = [d.decode() for d in wire("KVCHUNK.DIGESTS", "ns", "TOKENS", prompt)]
        for first in range(0, size.messages, 100):
            parts = []
            for at in range(first, first + 100):
                link = "CALL" if at % 2 == 0 else "RESULT"
                parts += ["MSG", "tool", "x", "ID", f"m{at}", link, "one", *v(at)]
            wire("SESSION.APPEND", "s", "OWNER", "o", *parts)
        self.stream = wire("SESSION.BEGIN", "live", "assistant")
        # An owner of more sessions than a page looks at.
        wire.pipeline([("SESSION.APPEND", f"crowd-{at}", "MSG", "user", "x") for at in range(3_000)])
        wire("ZADD", "crowd", *(part for at in range(3_000) for part in (1 + at, f"crowd-{at}")))


def worst(world: World) -> list[tuple[str, list]]:
    """The arguments of each command, more than once where one alone is not the worst; in an order in which each finds
    what it is for."""
    d, ids, size = world.digests, world.ids, world.size
    v, questions, chunks = size.v, size.questions, size.chunks
    many = ["PROMPT", "p", "RESPONSE", "r" * 10_000]
    asked = [part for at in range(questions) for part in (*v(at), "PROMPT", f"question {at}")]
    texts = ["TEXTS", size.batch, *(f"t{at}" for at in range(size.batch))]
    lines = ['{"role":"user","content":"x","id":"l%d"}' % at for at in range(size.lines)]
    # As many bytes as they may have together.
    wide = "x" * ((512 << 10) // size.lines - 64)
    long_lines = ['{"role":"user","content":"%s"}' % wide for _ in range(size.lines)]
    seq, token = world.stream[0], world.stream[1].decode() if world.stream[1] else "0"
    everything = ["TOKENS", tokens(chunks)]
    commands = {
        "LLMCACHE.CREATE": ["c2", "DIM", size.dim],
        "LLMCACHE.SETSEM": ["faq", *many, *v(5), "TAGS", 64, *(f"t{n}" for n in range(64))],
        "LLMCACHE.SET": ["faq", *many],
        "LLMCACHE.GETSEM": ["faq", *v(1), "COUNT", 1000, "THRESHOLD", -1, "GUARD", "OFF", "EF", 10000],
        "LLMCACHE.MGETSEM": ["faq", questions, *asked, "COUNT", 10_000 // questions, "THRESHOLD", -1, "GUARD", "STRICT"],
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
        "EMBCACHE.CREATE": ["e2", "MODEL", "m", "DIM", size.dim],
        "EMBCACHE.SET": ["emb", "TEXT", "t", *v(1)],
        "EMBCACHE.GET": ["emb", "TEXT", "t1", "AS", "VALUES"],
        "EMBCACHE.MGET": ["emb", *texts, "AS", "VALUES"],
        "EMBCACHE.MGETEX": ["emb", *texts, "EX", 100],
        "EMBCACHE.MSET": ["emb", size.batch, *(part for at in range(size.batch) for part in ("TEXT", f"t{at}", *v(at)))],
        "EMBCACHE.FETCH": ["emb", "TEXT", "t1"],
        "EMBCACHE.FAIL": ["emb", "0" * 16],
        "EMBCACHE.EXTEND": ["emb", "0" * 16, 1000],
        "EMBCACHE.INFO": ["emb"],
        "EMBCACHE.DEL": ["emb", *texts],
        "RAG.CREATE": ["r2", "DIM", size.dim],
        "RAG.ADD": ["docs", "d1", *v(1), "TEXT", "t" * 10_000],
        "RAG.MADD": ["docs", size.batch, *(part for at in range(size.batch) for part in (f"d{at}", *v(at), "TEXT", "t"))],
        "RAG.SEARCH": ["docs", *v(1), "COUNT", 1000, "MMR", 0.5, "EF", 10000],
        "RAG.GET": ["docs", "d1"],
        "RAG.MGET": ["docs", "IDS", size.batch, *(f"d{at}" for at in range(size.batch)), "RETURN", 2, "id", "vector"],
        "RAG.SCAN": ["docs", 0, "COUNT", 10000, "FILTER", ".n >= 0"],
        "RAG.INFO": ["docs"],
        "RAG.DEL": ["docs", *(f"d{at}" for at in range(100))],
        "KVCHUNK.CREATE": ["ns2"],
        "KVCHUNK.PUT": ["ns", *everything, "PAYLOAD", 1, "y"],
        "KVCHUNK.MPUT": ["ns", *everything, "PAYLOADS", chunks, *[1, "x"] * chunks],
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
        "KVCHUNK.TREE": ["ns", "COUNT", 1000],
        "KVCHUNK.INFO": ["ns"],
        "KVCHUNK.STATS": ["ns"],
        "KVCHUNK.VERIFY": ["ns", "COUNT", 10000],
        "KVCHUNK.BUDGET": ["ns", 1 << 30],
        "KVCHUNK.DIGESTS": ["ns", *everything],
        "KVCHUNK.DEL": ["ns", d[0], "SUBTREE"],
        "SESSION.APPEND": ["s2", *(part for at in range(size.lines) for part in ("MSG", "user", "x", "ID", f"i{at}"))],
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
    packed = b"".join(bytes.fromhex(digest) for digest in d)
    # What else some of them can be asked.
    others = [
        ("KVCHUNK.TREE", ["ns", "EVICTION", "COUNT", 1000]),
        ("RAG.DEL", ["docs", "FILTER", ".n >= 0", "DRYRUN"]),
        ("RAG.DEL", ["docs", "TAG", "none"]),
        ("KVCHUNK.FETCH", ["ns", *everything, "SPARSE", "LEASE", 1000]),
        *((name, ["ns", "PACKED", 32, packed, *more]) for name, *more in (
            ("KVCHUNK.MATCH", "LEASE", 1000),
            ("KVCHUNK.FETCH", "LEASE", 1000),
            ("KVCHUNK.MISSING",),
        )),
        ("EMBCACHE.MGET", ["emb", *texts]),
        ("SESSION.LOAD", ["s5", *long_lines]),
        # Others in the places of those of the same ids.
        ("SESSION.APPEND", ["s7", *(part for at in range(size.lines) for part in ("MSG", "user", "x", "ID", f"i{at}"))]),
        ("SESSION.APPEND", ["s7", "UPSERT", *(part for at in range(size.lines) for part in ("MSG", "user", "y", "ID", f"i{at}"))]),
        ("SESSION.LIST", ["crowd", "COUNT", 10_000]),
        ("SESSION.APPEND", ["s6", *(part for _ in range(size.lines) for part in ("MSG", "user", wide))]),
        ("RAG.MADD", ["docs", size.batch, *(part for at in range(size.batch) for part in (f"d{at}", *v(at), "TEXT", "t" * 10_000, "META", '{"k":"%s"}' % ("v" * 5_000)))]),
        ("RAG.SEARCH", ["docs", *v(1), "COUNT", 1000, "FILTER", ".n >= 0"]),
    ]
    return [*others, *commands.items()]
