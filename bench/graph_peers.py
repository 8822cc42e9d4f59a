"""The indexes that are compared: how each is told to store, to find and to forget, and how it answers.

Owns: the commands. A row of the vectors is named by its number everywhere, so that answers compare.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from host import Host
from report import check
from wire import encode

from harness.names import entry_id

K = 10
# Twice as many links on the lowest level; the default of all three.
LINKS = 16


class Index:
    """A server with one index of vectors."""

    def __init__(self, name: str, host: Host):
        self.name = name
        self.host = host
        self.empty_bytes = 0

    def settle(self) -> None:
        """Waits until nothing that was stored or removed is left to be worked in."""

    def index_bytes(self) -> int | None:
        """What the index alone takes, where the server says it."""


class Ours(Index):
    """A cache that is searched by a graph whatever its size; entries have 8 bytes of prompt and of response."""

    def create(self, dim: int, cache: str = "faq") -> None:
        self.host("LLMCACHE.CREATE", cache, "DIM", dim, "INDEX", "HNSW")

    def insert(self, n: int, blob: bytes, cache: str = "faq") -> list:
        return ["LLMCACHE.SETSEM", cache, "PROMPT", f"p{n:07d}", "RESPONSE", f"{n:08d}", "FP32", blob]

    def delete(self, n: int) -> list:
        return ["LLMCACHE.DEL", "faq", entry_id(f"p{n:07d}")]

    def find(self, blob: bytes, ef: int, cache: str = "faq") -> bytes:
        return encode([
            *("LLMCACHE.GETSEM", cache, "FP32", blob, "THRESHOLD", -1, "COUNT", K, "EF", ef),
            *("RETURN", 1, "response"),
        ])

    def info(self) -> dict[str, object]:
        return fields(self.host("LLMCACHE.INFO", "faq"))

    def count(self) -> int:
        return int(self.info()["entries"])

    def settle(self) -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            info = self.info()
            if info["tail"] == 0 and info["tombstones"] == 0:
                return
            # Asking keeps the server from having nothing else to do, and so from working at full speed.
            time.sleep(0.03)
        check(False, f"the graph is not done after two minutes: {info['tail']} wait, {info['tombstones']} tombstones")

    def index_bytes(self) -> int:
        return int(self.info()["index_bytes"])


class VectorSet(Index):
    """A vector set with int8 codes, which are its default; element names of 8 bytes."""

    def __init__(self, name: str, host: Host, efc: int | None = None):
        super().__init__(name, host)
        self.options = [] if efc is None else ["EF", efc]

    def create(self, dim: int) -> None:
        """The first element makes it."""

    def insert(self, n: int, blob: bytes) -> list:
        return ["VADD", "set", "FP32", blob, f"{n:08d}", *self.options]

    def delete(self, n: int) -> list:
        return ["VREM", "set", f"{n:08d}"]

    def find(self, blob: bytes, ef: int, *options: str) -> bytes:
        return encode(["VSIM", "set", "FP32", blob, "COUNT", K, "EF", ef, *options])

    def count(self) -> int:
        return self.host("VCARD", "set")


class Search(Index):
    """RediSearch over hashes of a float32 vector and a field of 8 bytes."""

    def __init__(self, name: str, host: Host, efc: int | None = None):
        super().__init__(name, host)
        self.options = [] if efc is None else ["EF_CONSTRUCTION", efc]

    def create(self, dim: int) -> None:
        vector = ["TYPE", "FLOAT32", "DIM", dim, "DISTANCE_METRIC", "COSINE", "M", LINKS, *self.options]
        self.host("FT.CREATE", "docs", "PREFIX", 1, "d:", "SCHEMA", "v", "VECTOR", "HNSW", len(vector), *vector)

    def insert(self, n: int, blob: bytes) -> list:
        return ["HSET", f"d:{n:08d}", "t", f"{n:08d}", "v", blob]

    def delete(self, n: int) -> list:
        return ["DEL", f"d:{n:08d}"]

    def find(self, blob: bytes, ef: int) -> bytes:
        query = f"*=>[KNN {K} @v $b EF_RUNTIME {ef}]"
        # Best first, as the others answer; it costs nothing that could be measured.
        order = ["SORTBY", "__v_score"]
        return encode(["FT.SEARCH", "docs", query, "PARAMS", 2, "b", blob, *order, "RETURN", 1, "t", "DIALECT", 2])

    def count(self) -> int:
        return int(fields(self.host("FT.INFO", "docs"))["num_docs"])


def fields(flat: list) -> dict[str, object]:
    """A map that was sent as a flat array."""
    return {key if isinstance(key, str) else key.decode(): value for key, value in zip(flat[::2], flat[1::2])}


@dataclass(frozen=True)
class Way:
    """A way to ask an index, and how to read which rows the reply names."""

    name: str
    index: Index
    find: Callable[[bytes, int], bytes]
    rows: Callable[[list], list[int]]


def ways(index: Index) -> list[Way]:
    match index:
        case Ours():
            return [Way(index.name, index, index.find, lambda reply: [int(hit[1]) for hit in reply])]
        case VectorSet():
            return [
                Way("VSIM threads", index, index.find, lambda reply: list(map(int, reply))),
                Way("VSIM NOTHREAD", index, lambda b, ef: index.find(b, ef, "NOTHREAD"), lambda reply: list(map(int, reply))),
            ]
        case Search():
            return [Way(index.name, index, index.find, lambda reply: [int(found[1]) for found in reply[2::2]])]
    raise TypeError(f"{index.name} cannot be asked")
