"""A fake embedding model for tests: texts that share words are near."""

from __future__ import annotations

import hashlib
import math
import re

DIM = 64


def embed(text: str) -> list[float]:
    """A vector of the text's words; the same text has the same vector in every process."""
    vector = [0.0] * DIM
    for word in re.findall(r"\w+", text.lower()):
        digest = hashlib.sha256(word.encode()).digest()
        for at in range(8):
            vector[digest[at] % DIM] += 1.0 if digest[at + 8] & 1 else -1.0
    norm = math.sqrt(sum(x * x for x in vector)) or 1.0
    return [x / norm for x in vector] if norm else vector


def embed_many(texts: list[str]) -> list[list[float]]:
    return [embed(text) for text in texts]
