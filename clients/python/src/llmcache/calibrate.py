"""Which threshold suits a model: the share of pairs that each would serve, right ones and wrong ones. Pure.

Pairs are questions with a label: whether the answer to the one is right for the other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

GRID = [round(0.50 + 0.02 * n, 2) for n in range(25)]


@dataclass(frozen=True, slots=True)
class Pair:
    first: str
    second: str
    same: bool


@dataclass(frozen=True, slots=True)
class Row:
    """At a threshold: the share of true repeats served, of other questions served, and of what is served that is
    wrong."""

    threshold: float
    served: float
    wrong: float
    wrong_of_served: float


def read(lines: Iterable[str]) -> list[Pair]:
    """Pairs of lines of JSON: `{"a": ..., "b": ..., "same": true}`; also `query`, `candidate`, `label` and the like."""
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            first = next(row[k] for k in ("a", "first", "query", "question1", "prompt") if k in row)
            second = next(row[k] for k in ("b", "second", "candidate", "question2", "cached") if k in row)
            label = next(row[k] for k in ("same", "label", "is_duplicate", "expected") if k in row)
        except (ValueError, TypeError, StopIteration):
            raise ValueError(f'line {number} is no pair: {{"a": "...", "b": "...", "same": true}}') from None
        pairs.append(Pair(str(first), str(second), label in (True, 1, "1", "true", "same", "yes", "hit")))
    return pairs


def similarities(
    pairs: Sequence[Pair], embed: Callable[[list[str]], Any], told: Callable[[int, int], None] = lambda done, all: None,
    batch: int = 64,
) -> list[float]:  # fmt: skip
    """The cosine of each pair; every text is embedded once."""
    texts = list(dict.fromkeys(text for pair in pairs for text in (pair.first, pair.second)))
    vectors: dict[str, list[float]] = {}
    for at in range(0, len(texts), batch):
        some = texts[at : at + batch]
        for text, vector in zip(some, embed(some), strict=True):
            vectors[text] = [float(x) for x in vector]
        told(min(at + batch, len(texts)), len(texts))
    return [cosine(vectors[pair.first], vectors[pair.second]) for pair in pairs]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    norm = math.sqrt(sum(a * a for a in one)) * math.sqrt(sum(b * b for b in other))
    return dot / norm if norm else 0.0


def table(pairs: Sequence[Pair], found: Sequence[float], grid: Sequence[float] = GRID) -> list[Row]:
    """One row for each threshold."""
    true = [s for pair, s in zip(pairs, found, strict=True) if pair.same]
    false = [s for pair, s in zip(pairs, found, strict=True) if not pair.same]
    rows = []
    for threshold in grid:
        right, wrong = sum(s >= threshold for s in true), sum(s >= threshold for s in false)
        rows.append(Row(threshold, right / (len(true) or 1), wrong / (len(false) or 1), wrong / ((right + wrong) or 1)))
    return rows


def advised(rows: Sequence[Row], most_wrong: float = 0.02) -> float | None:
    """The lowest threshold of whose answers at most this share is wrong."""
    fit = [row.threshold for row in rows if row.wrong_of_served <= most_wrong and row.served > 0]
    return min(fit, default=None)
