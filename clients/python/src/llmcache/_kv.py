"""What the methods of a namespace of attention KV-cache chunks do (`KVCHUNK.*`), as flows.

A prompt is its tokens (numbers, or a blob of little-endian u32), or the digests of its chunks in `hashes`. Knows no
socket, thread or loop.
"""

from __future__ import annotations

import array
import hashlib
import json
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import _replies as r
from . import filters, limits
from ._flow import Argument, Command, Flow
from ._moving import Progress, move_chunks
from ._several import batches, every, expiry, milliseconds, present, scanned, summed
from ._shards import Shards
from .errors import NoCache
from .types import Chunk, Fields, Match, Page, Stored

if TYPE_CHECKING:
    from ._clients import _Shared

Tokens = Sequence[int] | bytes | bytearray | memoryview
Payload = bytes | bytearray | memoryview

# Of a prompt's chunks that say in which shard it is: the first is every request's alike.
SHARD_DEPTH = 2
_PAGE_BYTES = 16 << 20
_DTYPES = {"fp16": "float16", "half": "float16", "bf16": "bfloat16", "fp32": "float32", "float": "float32"}


def blob(tokens: Tokens) -> bytes:
    """Tokens as the server reads them."""
    if isinstance(tokens, bytes | bytearray | memoryview):
        return bytes(tokens)
    packed = array.array("I", tokens)
    if packed.itemsize != 4:
        return struct.pack(f"<{len(tokens)}I", *tokens)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def fingerprint(model: str = "", dtype: str = "", form: str = "", shape: Sequence[int] = (), chunk: int = 256) -> bytes:
    """What every digest of a namespace is chained to (docs/formats.md)."""
    dims = b"".join(struct.pack("<I", dim) for dim in shape)
    parts = (model.encode(), _DTYPES.get(dtype, dtype).encode(), form.encode(), dims)
    return hashlib.sha256(b"".join(struct.pack("<I", len(p)) + p for p in parts) + struct.pack("<I", chunk)).digest()


def digests(fingerprint: bytes, tokens: Tokens, chunk: int = 256, salt: bytes = b"") -> list[bytes]:
    """The digests of a prompt's whole chunks, as the server computes them."""
    data, step = blob(tokens), chunk * 4
    previous = hashlib.sha256(fingerprint + salt).digest()
    found = []
    for at in range(0, len(data) - step + 1, step):
        previous = hashlib.sha256(previous + data[at : at + step]).digest()
        found.append(previous)
    return found


class KVBase:
    _connection: Any

    def __init__(
        self,
        client: Any,
        name: str,
        *,
        model: str = "",
        dtype: str = "",
        form: str = "",
        shape: Sequence[int] = (),
        chunk: int = 256,
        salt: str = "",
        ttl: float | None = None,
        shards: int = 1,
        shards_before: int | None = None,
        shard_depth: int = SHARD_DEPTH,
    ):
        self._connection = self._connect(client)
        self.name, self.model, self.dtype, self.form, self.shape = name, model, dtype, form, tuple(shape)
        self.chunk, self.salt, self.ttl = chunk, salt, ttl
        self.shards, self.shard_depth = Shards(name, shards, shards_before), shard_depth
        self._fingerprint = fingerprint(model, dtype, form, shape, chunk)

    def _connect(self, client: Any) -> Any:
        raise NotImplementedError

    def digests(self, tokens: Tokens) -> list[bytes]:
        """The digests of a prompt's chunks, computed here."""
        return digests(self._fingerprint, tokens, self.chunk, self.salt.encode())

    def _where(self, tokens: Tokens | None, hashes: Sequence[bytes] | None) -> tuple[str, list[Argument]]:
        """The namespace of a prompt, and the prompt as arguments."""
        if (tokens is None) == (hashes is None):
            raise TypeError("a prompt is its tokens or its hashes")
        if hashes is not None:
            said: list[Argument] = ["HASHES", len(hashes), *hashes]
            first = hashes[: self.shard_depth]
        else:
            assert tokens is not None
            data = blob(tokens)
            said = ["TOKENS", data, *(["SALT", self.salt] if self.salt else [])]
            if self.shards.count == 1 and self.shards.was is None:
                return self.name, said
            head = data[: self.shard_depth * self.chunk * 4]
            first = digests(self._fingerprint, head, self.chunk, self.salt.encode())
        return self.shards.place(first[-1] if first else b""), said

    def _before(self, tokens: Tokens | None, hashes: Sequence[bytes] | None) -> str | None:
        """The namespace that a prompt was in, where that is another."""
        if self.shards.was is None:
            return None
        if hashes is None:
            assert tokens is not None
            data = blob(tokens)[: self.shard_depth * self.chunk * 4]
            hashes = digests(self._fingerprint, data, self.chunk, self.salt.encode())
        first = hashes[: self.shard_depth]
        was, now = self.shards.place(first[-1] if first else b"", self.shards.was), self._where(None, list(first))[0]
        return None if was == now else was

    def _stored(self, ttl: float | None, priority: int | None, nx: bool) -> list[Argument]:
        args = expiry(self.ttl if ttl is None else ttl)
        if priority is not None:
            args += ["PRIO", priority]
        return [*args, *(["NX"] if nx else [])]


class KVFlows(KVBase):
    if TYPE_CHECKING:
        _connection: _Shared

    def create(
        self, *, ttl: int | None = None, budget: int | None = None, checksum: bool | None = None,
        durable: str | None = None,
    ) -> Flow[None]:  # fmt: skip
        """Creates the namespace as this object describes it; `budget` is of all shards together."""
        args: list[Argument] = ["CHUNK", self.chunk]
        for word, text in (("MODEL", self.model), ("DTYPE", self.dtype), ("FORMAT", self.form)):
            if text:
                args += [word, text]
        if self.shape:
            args += ["SHAPE", len(self.shape), *self.shape]
        if ttl is not None:
            args += ["TTL", ttl]
        if budget is not None:
            args += ["BUDGET", budget // self.shards.count]
        if checksum is not None:
            args += ["CHECKSUM", "ON" if checksum else "OFF"]
        if durable is not None:
            args += ["DURABLE", durable]
        yield from every([("KVCHUNK.CREATE", name, *args) for name in self.shards.names()])

    def match(
        self, tokens: Tokens | None = None, *, hashes: Sequence[bytes] | None = None,
        filter: filters.Filter | None = None, lease: float | None = None,
    ) -> Flow[Match]:  # fmt: skip
        """The longest prefix of a prompt that is there, kept from the budget for `lease` seconds."""
        name, said = self._where(tokens, hashes)
        args: list[Argument] = [] if filter is None else ["FILTER", filters.text(filter)]
        if lease is not None:
            args += ["LEASE", milliseconds(lease)]
        name = yield from _holder(self, name, said, tokens, hashes)
        chunks, count, held = yield Command(("KVCHUNK.MATCH", name, *said, *args))
        return Match(int(chunks), int(count), _lease(held))

    def fetch_page(
        self, tokens: Tokens | None = None, *, hashes: Sequence[bytes] | None = None, start: int = 0,
        count: int | None = None, max_bytes: int = _PAGE_BYTES, range: tuple[int, int] | None = None,
        lease: float | None = None,
    ) -> Flow[Page]:  # fmt: skip
        """Payloads of the prefix from chunk `start` on, about `max_bytes` of them; `next` is where to go on."""
        name, said = self._where(tokens, hashes)
        args: list[Argument] = ["FROM", start, "MAXBYTES", max_bytes]
        if count is not None:
            args += ["COUNT", count]
        if range is not None:
            args += ["RANGE", *range]
        if lease is not None:
            args += ["LEASE", milliseconds(lease)]
        name = yield from _holder(self, name, said, tokens, hashes)
        reply = yield Command(("KVCHUNK.FETCH", name, *said, *args))
        prefix, answered, after, rows = reply[:4]
        held = reply[4] if len(reply) > 4 else None
        more = int(answered) > 0 and int(after) < int(prefix)
        return Page(
            int(prefix),
            int(after) if more else None,
            [_chunk(row) for row in rows],
            _lease(held),
        )

    def fetch(
        self, tokens: Tokens | None = None, *, hashes: Sequence[bytes] | None = None, start: int = 0,
        count: int | None = None, into: Sequence[Any] | None = None, max_bytes: int = _PAGE_BYTES,
    ) -> Flow[list[Chunk]]:  # fmt: skip
        """The payloads of the longest prefix that is there, page by page; with `into` written into these buffers."""
        found: list[Chunk] = []
        at: int | None = start
        while at is not None and (count is None or len(found) < count):
            left = None if count is None else count - len(found)
            page = yield from KVFlows.fetch_page(self, tokens, hashes=hashes, start=at, count=left, max_bytes=max_bytes)
            if into is not None:
                for number, chunk in enumerate(page.chunks, len(found)):
                    _write(into[number], chunk)
            found += page.chunks
            at = page.next
        return found

    def fetch_set(
        self, hashes: Sequence[bytes], *, into: Sequence[Any] | None = None, max_bytes: int = _PAGE_BYTES
    ) -> Flow[list[Chunk | None]]:
        """Of any chunks those that are there with all before them, None for each other; page by page.

        With `into` the payload of chunk n is written into buffer n.
        """
        name, said = self._where(None, hashes)
        name = yield from _holder(self, name, said, None, hashes)
        found: list[Chunk | None] = []
        while len(found) < len(hashes):
            page = yield Command(("KVCHUNK.FETCH", name, *said, "SPARSE", "FROM", len(found), "MAXBYTES", max_bytes))
            rows = page[3]
            if not rows:
                # There is no such namespace yet.
                rows = [None] * (len(hashes) - len(found))
            for row in rows:
                chunk = None if row is None else _chunk(row)
                if chunk is not None and into is not None:
                    _write(into[len(found)], chunk)
                found.append(chunk)
        return found

    def put(
        self, payload: Payload, tokens: Tokens | None = None, *, hash: bytes | None = None,
        parent: bytes | None = None, meta: Mapping[str, Any] | None = None, ttl: float | None = None,
        priority: int | None = None, nx: bool = False,
    ) -> Flow[Stored]:  # fmt: skip
        """Stores the chunk that ends a prompt."""
        if hash is not None:
            # A chunk named by its own digest has only its parent to say where the prompt began.
            if self.shards.count > 1:
                raise TypeError("of several shards put_many with hashes says where a chunk belongs")
            name = self.name
            said: list[Argument] = ["HASH", hash]
            if parent is not None:
                said += ["PARENT", parent]
        else:
            name, said = self._where(tokens, None)
        pieces = segments(payload)
        args: list[Argument] = ["PAYLOAD", len(pieces), *pieces]
        if meta is not None:
            args += ["META", json.dumps(meta, ensure_ascii=False)]
        args += self._stored(ttl, priority, nx)
        return Stored.of((yield Command(("KVCHUNK.PUT", name, *said, *args))))

    def put_many(
        self, payloads: Sequence[Payload], tokens: Tokens | None = None, *, hashes: Sequence[bytes] | None = None,
        start: int = 0, ttl: float | None = None, priority: int | None = None, nx: bool = False,
    ) -> Flow[list[Stored]]:  # fmt: skip
        """Stores the chunks of a prompt from `start` on, each whole or not at all, in batches."""
        name, said = self._where(tokens, hashes)
        if start:
            # What goes on a prefix goes where that is.
            name = yield from _holder(self, name, said, tokens, hashes)
        tail = self._stored(ttl, priority, nx)
        stored: list[Stored] = []
        for batch in _weighed(payloads):
            args: list[Argument] = []
            for payload in batch:
                pieces = segments(payload)
                args += [len(pieces), *pieces]
            reply = yield Command(
                ("KVCHUNK.MPUT", name, *said, "FROM", start + len(stored), "PAYLOADS", len(batch), *args, *tail)
            )
            stored += [Stored.of(one) for one in reply]
        return stored

    def get(self, digest: bytes | str) -> Flow[Chunk | None]:
        """One chunk by its digest."""
        for name in self.shards.every():
            reply = yield Command(("KVCHUNK.GET", name, _hex(digest)))
            if reply is not None:
                told, size, pieces = reply
                m = r.mapping(told)
                return Chunk(r.text(m["digest"]), r.document(m.get("meta")), int(size), list(pieces))
        return None

    def missing(self, tokens: Tokens | None = None, *, hashes: Sequence[bytes] | None = None) -> Flow[list[int]]:
        """Which chunks of a prompt are not there, by their numbers from 0."""
        name, said = self._where(tokens, hashes)
        name = yield from _holder(self, name, said, tokens, hashes)
        return [int(at) for at in (yield Command(("KVCHUNK.MISSING", name, *said)))]

    def find(
        self, tokens: Tokens, *, stride: int | None = None, min_run: int | None = None
    ) -> Flow[list[tuple[int, int, str, int]]]:
        """Chunks whose tokens stand at any offset: (offset here, offset there, digest, bytes)."""
        args: list[Argument] = [] if stride is None else ["STRIDE", stride]
        if min_run is not None:
            args += ["MINRUN", min_run]
        replies = yield from present(
            [("KVCHUNK.FIND", name, "TOKENS", blob(tokens), *args) for name in self.shards.every()]
        )
        return [(int(a), int(b), r.text(d), int(n)) for reply in replies for a, b, d, n in reply]

    def delete(self, *wanted: bytes | str, subtree: bool = False) -> Flow[int]:
        """Removes chunks by digest, with `subtree` all that follow them; how many."""
        return (yield from _on_digests(self, "KVCHUNK.DEL", wanted, ["SUBTREE"] if subtree else []))

    def pin(self, *wanted: bytes | str, subtree: bool = False, prefix: bool = False) -> Flow[int]:
        """Keeps chunks from the budget; how many were not pinned before."""
        tail: list[Argument] = ["SUBTREE"] if subtree else ["PREFIX"] if prefix else []
        return (yield from _on_digests(self, "KVCHUNK.PIN", wanted, tail))

    def unpin(self, *wanted: bytes | str, subtree: bool = False, prefix: bool = False) -> Flow[int]:
        """Lets pinned chunks go; how many were pinned."""
        tail: list[Argument] = ["SUBTREE"] if subtree else ["PREFIX"] if prefix else []
        return (yield from _on_digests(self, "KVCHUNK.UNPIN", wanted, tail))

    def touch(self, *wanted: bytes | str) -> Flow[int]:
        """Counts a use of chunks; how many are there."""
        return (yield from _on_digests(self, "KVCHUNK.TOUCH", wanted, []))

    def lease(self, seconds: float, *wanted: bytes | str) -> Flow[tuple[int, str | None]]:
        """Keeps chunks from the budget for so long: how many are held, and the lease's name."""
        if self.shards.count > 1:
            raise TypeError("of several shards `match(..., lease=)` takes the lease where the prompt is")
        held, name = yield Command(("KVCHUNK.LEASE", self.name, milliseconds(seconds), *map(_hex, wanted)))
        return int(held), _lease(name)

    def release(
        self, lease: str | int, tokens: Tokens | None = None, *, hashes: Sequence[bytes] | None = None
    ) -> Flow[int]:
        """Ends a lease; of several shards that of the prompt. How many chunks it still held."""
        name = self.name if self.shards.count == 1 else self._where(tokens, hashes)[0]
        return int((yield Command(("KVCHUNK.RELEASE", name, lease))))

    def budget(self, size: int) -> Flow[None]:
        """Changes how much memory the chunks of all shards may take."""
        yield from every([("KVCHUNK.BUDGET", name, size // self.shards.count) for name in self.shards.every()])

    def move(self, *, progress: Progress | None = None) -> Flow[int]:
        """Brings the chunks of `shards_before` shards to where their prompts are asked for now; how many moved."""
        yield from KVFlows.create(self)
        return (yield from move_chunks(self, progress))

    def ids(self, *, filter: filters.Filter | None = None) -> Flow[list[str]]:
        """The digests of all chunks; in pages."""
        tail: list[Argument] = [] if filter is None else ["FILTER", filters.text(filter)]
        found: list[str] = []
        for name in self.shards.every():
            found += yield from scanned("KVCHUNK.SCAN", name, tail)
        return found

    def info(self) -> Flow[Fields]:
        """Settings, tree and memory; of several shards summed."""
        replies = yield from present([("KVCHUNK.INFO", name) for name in self.shards.every()])
        if not replies:
            raise NoCache(f'NOCACHE there is no namespace "{self.name}"')
        return summed([Fields.of(reply) for reply in replies])

    def stats(self, *, reset: bool = False) -> Flow[Fields]:
        """What was stored, found and evicted; of several shards summed."""
        tail = ["RESET"] if reset else []
        replies = yield from present([("KVCHUNK.STATS", name, *tail) for name in self.shards.every()])
        if not replies:
            raise NoCache(f'NOCACHE there is no namespace "{self.name}"')
        return summed([Fields.of(reply) for reply in replies])

    def verify(self, count: int | None = None) -> Flow[list[Fields]]:
        """Checks payloads against their checksums; one report for each shard."""
        args: list[Argument] = [] if count is None else ["COUNT", count]
        replies = yield from present([("KVCHUNK.VERIFY", name, *args) for name in self.shards.every()])
        return [Fields.of(reply) for reply in replies]


def _holder(
    self: KVBase, name: str, said: Sequence[Argument], tokens: Tokens | None, hashes: Sequence[bytes] | None
) -> Flow[str]:
    """Which namespace has more of a prompt: the one it belongs to, or, while shards are moved, the one it was in."""
    before = self._before(tokens, hashes)
    if before is None:
        return name
    now, was = yield from every([("KVCHUNK.MATCH", place, *said) for place in (name, before)])
    return before if int(was[0]) > int(now[0]) else name


def _on_digests(self: KVBase, command: str, wanted: Sequence[bytes | str], tail: Sequence[Argument]) -> Flow[int]:
    commands = [
        (command, name, *map(_hex, batch), *tail)
        for name in self.shards.every()
        for batch in batches(wanted, limits.STORE_BATCH)
    ]
    return sum((yield from present(commands)))


def _lease(name: Any) -> str | None:
    """The name of a lease: a string, or a number as servers of 0.1.0 told it."""
    return None if name is None else r.text(name) if isinstance(name, (bytes, str)) else str(name)


def _chunk(row: Sequence[Any]) -> Chunk:
    digest, meta, size, pieces = row
    return Chunk(r.text(digest), r.document(meta), int(size), list(pieces))


def _hex(digest: bytes | str) -> str:
    """A digest as DEL, GET, PIN and so on take it: raw bytes are written in hex."""
    return digest if isinstance(digest, str) else digest.hex()


def _write(buffer: Any, chunk: Chunk) -> None:
    view = memoryview(buffer).cast("B")
    if len(view) != chunk.size:
        raise ValueError(f"chunk {chunk.digest} has {chunk.size} bytes, its buffer {len(view)}")
    at = 0
    for piece in chunk.segments:
        view[at : at + len(piece)] = piece
        at += len(piece)


def segments(payload: Payload) -> list[bytes]:
    """A payload in pieces that the server keeps without a copy."""
    view = memoryview(payload).cast("B")
    step = limits.SEGMENT
    return [bytes(view[at : at + step]) for at in range(0, len(view), step)] or [b""]


def _weighed(payloads: Sequence[Payload]) -> list[list[Payload]]:
    found: list[list[Payload]] = []
    size = 0
    for payload in payloads:
        length = memoryview(payload).nbytes
        if not found or size + length > limits.BATCH_BYTES:
            found.append([])
            size = 0
        found[-1].append(payload)
        size += length
    return found
