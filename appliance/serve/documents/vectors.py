"""Vectors of length 1: made, packed for the index, searched one by one (exactly, up to 200,000 of them)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from appliance.core.errors import EngineFailed
from appliance.serve.documents.embedding import Embedder

_ROWS = 8192  # made float32 at once
_read: dict[
    Path, tuple[str, np.ndarray, np.ndarray]
] = {}  # of each index: when it was made, numbers, vectors


def unit_vectors(embedder: Embedder, texts: Sequence[str]) -> np.ndarray:
    """Vectors of length 1, float32 [len(texts), d]; one that is all zeros stays so.

    Raises:
        EngineFailed: the embedder gave something else than a finite vector for each text.
    """
    found = np.asarray(embedder.embed(texts), dtype=np.float32)
    if found.ndim != 2 or len(found) != len(texts) or not np.isfinite(found).all():
        raise EngineFailed(
            f"{embedder.name} did not give one vector for each text.", "Use another embedding model."
        )
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    vectors: np.ndarray = found / np.where(lengths > 0, lengths, 1)
    return vectors


def packed(vectors: np.ndarray) -> list[bytes]:
    """Each vector as float16 in the machine's byte order, as the index keeps it."""
    return [vector.tobytes() for vector in vectors.astype(np.float16)]


def nearest(link: sqlite3.Connection, path: Path, version: str, vector: np.ndarray, count: int) -> list[int]:
    """The `count` passages with the largest cosine, best first; all of the index are looked at.

    `version` says when the index at `path`, open as `link`, was made: its vectors are read once.
    """
    known = _read.get(path)
    if known is None or known[0] != version:
        known = _read[path] = (version, *_vectors(link))
    _, numbers, matrix = known
    if not len(numbers) or matrix.shape[1] != len(vector):
        return []
    cosines = np.concatenate(
        [matrix[at : at + _ROWS].astype(np.float32) @ vector for at in range(0, len(matrix), _ROWS)]
    )
    best = np.argsort(-cosines, kind="stable")[:count]
    return [int(numbers[place]) for place in best]


def _vectors(link: sqlite3.Connection) -> tuple[np.ndarray, np.ndarray]:
    """Passage numbers and their vectors, float16 [n, d]."""
    rows = link.execute("SELECT id, vector FROM chunks WHERE vector IS NOT NULL ORDER BY id").fetchall()
    numbers = np.array([row["id"] for row in rows], np.int64)
    matrix = np.frombuffer(b"".join(row["vector"] for row in rows), np.float16)
    return numbers, matrix.reshape(len(rows), -1) if rows else matrix.reshape(0, 0)
