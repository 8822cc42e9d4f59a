"""Embeddings of real texts, and the truth about them by brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FIXTURE = Path(__file__).resolve().parent / "data"


def load(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The base and the query vectors of a folder, as float32 of unit length."""
    parts = []
    for pattern in ("*base*.npy", "*queries*.npy"):
        found = sorted(folder.glob(pattern))
        if len(found) != 1:
            raise SystemExit(f"bench: {folder} holds {len(found)} files named {pattern}, wanted one")
        rows = np.load(found[0]).astype(np.float32)
        parts.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return parts[0], parts[1]


def nearest(base: np.ndarray, queries: np.ndarray, k: int) -> list[list[int]]:
    """The k nearest rows of each query, nearest first, exactly."""
    scores = queries.astype(np.float64) @ base.astype(np.float64).T
    return np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()


def blob(vector: np.ndarray) -> bytes:
    return np.asarray(vector, dtype="<f4").tobytes()
