"""nDCG@10 of RAG.SEARCH on Cranfield: by vectors, by words, by both.

    python bench/cranfield.py FOLDER

FOLDER has `docs.jsonl`, `queries.jsonl`, `qrels.tsv`, `docs.f16.npy` and `queries.f16.npy`. Grades count 2^grade - 1.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
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


def main() -> None:
    folder = Path(sys.argv[1])
    documents, questions = lines(folder / "docs.jsonl"), lines(folder / "queries.jsonl")
    vectors = [np.load(folder / f"{name}.f16.npy").astype("<f4") for name in ("docs", "queries")]
    grades: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels.tsv").read_text().splitlines():
        question, document, grade = line.split("\t")
        grades.setdefault(question, {})[document] = int(grade)
    with tempfile.TemporaryDirectory() as data:
        server = Server("redis-server", ROOT / "target/release/libllmcache.so", Path(data))
        server.start()
        try:
            measure(server.client(), documents, questions, vectors, grades)
        finally:
            server.stop()


def measure(client, documents, questions, vectors, grades) -> None:
    for language in ("english", "none"):
        client.execute_command("RAG.CREATE", language, "WORDS", language)
        for document, vector in zip(documents, vectors[0], strict=True):
            client.execute_command("RAG.ADD", language, document["id"], "FP32", vector.tobytes(), "TEXT", document["text"])
    ways = {
        "vectors alone": ("english", True, None),
        "words alone, english": ("english", False, ["FUSE"]),
        "words alone, none": ("none", False, ["FUSE"]),
        "both, FUSE RRF 60": ("english", True, ["FUSE", "RRF", 60]),
        "both, FUSE LINEAR 0.6": ("english", True, ["FUSE", "LINEAR", 0.6]),
    }
    for name, (index, by_meaning, fuse) in ways.items():
        scores = []
        for question, vector in zip(questions, vectors[1], strict=True):
            if str(question["id"]) not in grades:
                continue
            words = ["FP32", vector.tobytes()] if by_meaning else []
            words += ["TEXT", question["text"]] if fuse else []
            words += fuse if fuse and by_meaning else []
            found = client.execute_command("RAG.SEARCH", index, *words, "RETURN", 1, "id")
            ids = [one[b"id"] if isinstance(one, dict) else one[1] for one in found]
            scores.append(ndcg([one.decode() for one in ids], grades[str(question["id"])]))
        print(f"{name:24} {sum(scores) / len(scores):.3f}")


if __name__ == "__main__":
    main()
