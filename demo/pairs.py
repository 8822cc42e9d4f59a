"""The question pairs of demo/data, their embeddings, and what brute force says of them.

Owns: reading the files, the cosine. Knows no server.
"""

from __future__ import annotations

import ast
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).resolve().parent / "data"
TRUE_REPEATS = ("near_repeat", "paraphrase")
TRAPS = ("negation", "entity_swap", "number_date", "scope")


@dataclass(frozen=True)
class Pair:
    id: str
    category: str
    first: str
    second: str
    same_answer: bool
    first_vector: bytes  # little-endian f16, as FP16 takes it
    second_vector: bytes

    def similarity(self) -> float:
        """Cosine of the two questions, in double precision."""
        one, other = numbers(self.first_vector), numbers(self.second_vector)
        dot = math.fsum(x * y for x, y in zip(one, other))
        return dot / math.sqrt(math.fsum(x * x for x in one) * math.fsum(y * y for y in other))


def numbers(vector: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(vector) // 2}e", vector)


def load() -> list[Pair]:
    with open(DATA / "pairs.jsonl", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    firsts, seconds = rows(DATA / "pairs_a.f16.npy"), rows(DATA / "pairs_b.f16.npy")
    assert len(records) == len(firsts) == len(seconds)
    return [
        Pair(r["id"], r["category"], r["a"], r["b"], r["same_answer"], first, second)
        for r, first, second in zip(records, firsts, seconds)
    ]


def rows(path: Path) -> list[bytes]:
    """The rows of a two-dimensional .npy file of half-precision numbers, as bytes."""
    data = path.read_bytes()
    assert data[:8] == b"\x93NUMPY\x01\x00", f"{path} is no .npy file of version 1.0"
    (length,) = struct.unpack_from("<H", data, 8)
    header = ast.literal_eval(data[10 : 10 + length].decode("latin-1"))
    assert header["descr"] == "<f2" and not header["fortran_order"], header
    count, dim = header["shape"]
    start, width = 10 + length, 2 * dim
    assert len(data) == start + count * width
    return [data[start + i * width : start + (i + 1) * width] for i in range(count)]
