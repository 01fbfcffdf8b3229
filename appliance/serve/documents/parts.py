"""Texts that are longer than an embedding model reads at once: cut into parts, none of it left out.

The vector of such a text is the mean of its parts' vectors, weighed by how many tokens each has. Passages
have about 200 tokens, but of a language without spaces, of numbers or of a rare script up to four times as
many, and a BERT reads 512.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

CONTEXT = 512  # tokens of one part, where the model reads so many; memory grows with it
LONGEST = 8192  # characters of a text that are looked at; a passage with its heading has far fewer


def parts(tokens: Sequence[int], frame: Sequence[int], most: int) -> list[list[int]]:
    """`tokens` in as few parts of up to `most` tokens as there can be, about equally long.

    `frame` is what the model makes of a text without words: the tokens that it puts before and after
    each. They stand around each part too.
    """
    if len(tokens) <= most:
        return [list(tokens)]
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(tokens, frame, strict=False)))
    head, tail = frame[:same], frame[same:]
    room = most - len(frame)
    body = list(tokens[len(head) : len(tokens) - len(tail)])
    count = -(-len(body) // room)
    edges = [len(body) * number // count for number in range(count + 1)]
    return [[*head, *body[start:end], *tail] for start, end in pairwise(edges)]


def joined(vectors: np.ndarray, weights: Sequence[int]) -> np.ndarray:
    """One vector for a text, float32 [d], of those of its parts; each counts for its direction alone."""
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: np.ndarray = np.average(vectors / np.where(lengths > 0, lengths, 1), axis=0, weights=weights)
    return found.astype(np.float32)
