"""The KVCHUNK commands as calls, and the digests computed here from the documented rules."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Sequence
from typing import Any

import redis

from .cache import options
from .names import hash_tag, raw

# A segment that the allocator wastes nothing on.
SEGMENT = (1 << 20) - 64


def blob(tokens: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(tokens)}I", *tokens)


def prefixed(part: bytes) -> bytes:
    return struct.pack("<I", len(part)) + part


def fingerprint(model=b"", dtype=b"", form=b"", shape=(), chunk=256) -> bytes:
    dims = b"".join(struct.pack("<I", dim) for dim in shape)
    parts = b"".join(prefixed(raw(part)) for part in (model, dtype, form, dims))
    return hashlib.sha256(parts + struct.pack("<I", chunk)).digest()


def digests(tokens: Sequence[int], chunk: int = 256, salt: bytes = b"", **given) -> list[str]:
    previous = hashlib.sha256(fingerprint(chunk=chunk, **given) + salt).digest()
    out = []
    for start in range(0, len(tokens) - chunk + 1, chunk):
        previous = hashlib.sha256(previous + blob(tokens[start : start + chunk])).digest()
        out.append(previous.hex())
    return out


def payload(seed: Any, size: int = 1_000) -> bytes:
    return random.Random(repr(seed)).randbytes(size)


def cut(data: bytes, size: int = SEGMENT) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


class Kv:
    """One namespace behind one client; small chunks of four tokens unless told otherwise."""

    def __init__(self, client: redis.Redis, name: bytes | str = "ns", chunk: int = 4):
        self.client, self.name, self.chunk = client, name, chunk

    def run(self, command: str, *arguments) -> Any:
        return self.client.execute_command(f"KVCHUNK.{command}", self.name, *arguments)

    def create(self, **given) -> Any:
        shape = given.pop("shape", None)
        more = ["SHAPE", len(shape), *shape] if shape else []
        return self.run("CREATE", "CHUNK", self.chunk, *more, *options(given))

    def put(self, tokens: Sequence[int], data: bytes | list[bytes], **given) -> str:
        segments = data if isinstance(data, list) else [data]
        chain = ["TOKENS", blob(tokens)]
        if "salt" in given:
            chain += ["SALT", given.pop("salt")]
        return self.run("PUT", *chain, "PAYLOAD", len(segments), *segments, *options(given)).decode()

    def put_hash(self, name: bytes, data: bytes, parent: bytes | None = None, **given) -> str:
        more = ["PARENT", parent] if parent else []
        return self.run("PUT", "HASH", name, *more, "PAYLOAD", 1, data, *options(given)).decode()

    def mput(self, tokens: Sequence[int], payloads: Sequence[bytes], start: int | None = None, **given) -> list[str]:
        more = [] if start is None else ["FROM", start]
        each = [part for data in payloads for part in (1, data)]
        words = self.run("MPUT", "TOKENS", blob(tokens), *more, "PAYLOADS", len(payloads), *each, *options(given))
        return [word.decode() for word in words]

    def match(self, tokens: Sequence[int], **given) -> int:
        return self.run("MATCH", "TOKENS", blob(tokens), *options(given))[0]

    def lease(self, tokens: Sequence[int], ms: int) -> bytes:
        return self.run("MATCH", "TOKENS", blob(tokens), "LEASE", ms)[2]

    def fetch(self, tokens: Sequence[int], *more) -> tuple[int, int, int, list[tuple[str, Any, int, bytes]]]:
        matched, returned, following, chunks = self.run("FETCH", "TOKENS", blob(tokens), *more)[:4]
        return matched, returned, following, [(d.decode(), m, n, b"".join(s)) for d, m, n, s in chunks]

    def get(self, digest: str, *more) -> tuple[dict, int, bytes] | None:
        found = self.run("GET", digest, *more)
        if found is None:
            return None
        about, size, segments = found
        return {k.decode(): v for k, v in fields_of(about).items()}, size, b"".join(segments)

    def missing(self, tokens: Sequence[int]) -> list[int]:
        return self.run("MISSING", "TOKENS", blob(tokens))

    def scan(self, count: int = 100) -> list[str]:
        cursor, found = b"0", []
        while True:
            cursor, page = self.run("SCAN", cursor, "COUNT", count)
            found += [digest.decode() for digest in page]
            if cursor == b"0":
                return found

    def info(self) -> dict[str, Any]:
        return {k.decode(): v for k, v in fields_of(self.run("INFO")).items()}

    def stats(self) -> dict[str, Any]:
        return {k.decode(): v for k, v in fields_of(self.run("STATS")).items()}

    def digests(self, tokens: Sequence[int], **given) -> list[str]:
        return digests(tokens, self.chunk, **given)

    def key(self, digest: str) -> bytes:
        name = raw(self.name)
        head = name if hash_tag(name) is not None else b"{" + name + b"}"
        return head + b"@" + digest.encode()

    def keys(self) -> set[bytes]:
        return set(self.client.keys(b"*@" + b"[0-9a-f]" * 64))


def fields_of(reply) -> dict:
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2]))
