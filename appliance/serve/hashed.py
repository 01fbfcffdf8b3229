"""Text as numbers without a vocabulary: counts of hashed pieces (Weinberger et al. 2009).

CRC-32 chooses the place and its top bit the sign, so that pieces that share a place cancel on average.
The same text gives the same numbers on every machine.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_WORD = re.compile(r"\w+")


def character_pieces(text: str, sizes: tuple[int, ...] = (3, 4)) -> Iterator[str]:
    """All runs of 3 and 4 characters of " text "."""
    padded = f" {text} "
    for size in sizes:
        for at in range(len(padded) - size + 1):
            yield padded[at : at + size]


def word_pieces(text: str) -> Iterator[str]:
    """The words in small letters and the pairs of neighbours, marked so that they are no characters' runs."""
    words = _WORD.findall(text.lower())
    for word in words:
        yield f"w {word}"
    for first, second in pairwise(words):
        yield f"p {first} {second}"


def hashed(pieces: Iterable[str], features: int) -> Floats:
    """The counts [features], of length 1 (0 where there are no pieces)."""
    found = [zlib.crc32(piece.encode("utf-8", "surrogatepass")) for piece in pieces]
    codes = np.array(found, np.int64)
    signs = np.where(codes >> 31, -1.0, 1.0)
    counts = np.bincount(codes % features, weights=signs, minlength=features)
    length = float(np.linalg.norm(counts))
    return np.asarray(counts / (length or 1.0), np.float64)
