"""nDCG@10 of RAG.SEARCH on Cranfield: by vectors, by words, by both.

    python bench/cranfield.py FOLDER

FOLDER has `docs.jsonl`, `queries.jsonl`, `qrels.tsv`, `docs.f16.npy` and `queries.f16.npy`. Grades count 2^grade - 1.
Fails where a figure is below its floor. `bench/hybrid.py` asks RediSearch the same.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from harness.server import Server  # noqa: E402


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def ndcg(found: list[str], grades: dict[str, int]) -> float:
    def gain(grades: list[int]) -> float:
        return sum((2**grade - 1) / math.log2(place + 2) for place, grade in enumerate(grades[:10]))

    best = gain(sorted(grades.values(), reverse=True))
    return gain([grades.get(one, 0) for one in found]) / best


@dataclass(frozen=True)
class Collection:
    """Documents, questions, their vectors, and which document answers which question how well."""

    documents: list[dict]
    questions: list[dict]
    vectors: list[np.ndarray]
    grades: dict[str, dict[str, int]]

    @classmethod
    def load(cls, folder: Path) -> Collection:
        grades: dict[str, dict[str, int]] = {}
        for line in (folder / "qrels.tsv").read_text().splitlines():
            question, document, grade = line.split("\t")
            grades.setdefault(question, {})[document] = int(grade)
        vectors = [np.load(folder / f"{name}.f16.npy").astype("<f4") for name in ("docs", "queries")]
        return cls(lines(folder / "docs.jsonl"), lines(folder / "queries.jsonl"), vectors, grades)

    def stored(self) -> Iterator[tuple[str, str, bytes]]:
        """Id, text and vector of each document."""
        for document, vector in zip(self.documents, self.vectors[0], strict=True):
            yield str(document["id"]), document["text"], vector.tobytes()

    def score(self, ask: Callable[[str, bytes], list[str]]) -> float:
        """nDCG@10 of what `ask` finds for a text and its vector, on average."""
        scores = []
        for question, vector in zip(self.questions, self.vectors[1], strict=True):
            if grades := self.grades.get(str(question["id"])):
                scores.append(ndcg(ask(question["text"], vector.tobytes()), grades))
        return sum(scores) / len(scores)


# The words of a way: TEXT adds those of the best documents, WORDS takes them as they are.
WAYS = {
    "vectors alone": ("english", True, None, []),
    "words alone, english": ("english", False, "TEXT", []),
    "words alone, none": ("none", False, "TEXT", []),
    "words alone, english, none added": ("english", False, "WORDS", []),
    "both, FUSE RRF 60": ("english", True, "TEXT", ["FUSE", "RRF", 60]),
    "both, FUSE LINEAR 0.6": ("english", True, "TEXT", ["FUSE", "LINEAR", 0.6]),
    "both, FUSE RRF 60, none added": ("english", True, "WORDS", ["FUSE", "RRF", 60]),
}

# Below this, something is broken: `main` fails.
FLOORS = {"vectors alone": 0.36, "words alone, english": 0.37, "both, FUSE RRF 60": 0.405, "both, FUSE LINEAR 0.6": 0.41}


def fill(run: Callable, collection: Collection) -> None:
    """Stores the documents twice: with the words of English, and with words as they are."""
    for language in ("english", "none"):
        run("RAG.CREATE", language, "WORDS", language)
        for name, text, vector in collection.stored():
            run("RAG.ADD", language, name, "FP32", vector, "TEXT", text)


def plain_words(text: str) -> str:
    """The words of a text without what `WORDS` takes for signs."""
    return " ".join(re.findall(r"\w+", text))


def ask(run: Callable, way: str) -> Callable[[str, bytes], list[str]]:
    index, by_meaning, words, fuse = WAYS[way]

    def found(text: str, vector: bytes) -> list[str]:
        what = ["FP32", vector] if by_meaning else []
        what += {"TEXT": ["TEXT", text], "WORDS": ["WORDS", plain_words(text)], None: []}[words]
        reply = run("RAG.SEARCH", index, *what, *fuse, "RETURN", 1, "id")
        return [(one[b"id"] if isinstance(one, dict) else one[1]).decode() for one in reply]

    return found


def main() -> int:
    collection = Collection.load(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as data:
        server = Server("redis-server", ROOT / "target/release/libllmcache.so", Path(data))
        server.start()
        try:
            run = server.client().execute_command
            fill(run, collection)
            scores = {way: collection.score(ask(run, way)) for way in WAYS}
        finally:
            server.stop()
    for way, score in scores.items():
        floor = f"at least {FLOORS[way]}" if way in FLOORS else ""
        print(f"{way:32} {score:.3f}  {floor}".rstrip())
    missed = [way for way, floor in FLOORS.items() if scores[way] < floor]
    if missed:
        print(f"below what is expected: {', '.join(missed)}")
    return len(missed)


if __name__ == "__main__":
    sys.exit(main())
