"""The odds that a question needs the large model, from its text: logistic regression on hashed pieces.

Learnt by appliance/ops/hybrid.py from an evaluation of both models. A router that was learnt from
records is not protected by differential privacy, so its file stays in the site's home. It is a .npz of
plain numbers, checked against the SHA-256 that the route names before it is read.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from appliance.core.errors import ModelRejected
from appliance.core.files import write_bytes
from appliance.core.reading import read_bytes
from appliance.serve.hashed import character_pieces, hashed, word_pieces

FEATURES = 1024  # of each kind: words, characters
_WIDTH = 2 * FEATURES + 1
_LONGEST = 8000  # characters that are looked at
_STEPS = 500
_ENOUGH = 1e-6

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Router:
    """`weights` [width] and `bias` of the logistic regression."""

    weights: Floats
    bias: float

    def odds(self, text: str) -> float:
        """The probability that the small model's answer is the worse one. About 0.2 ms for a message."""
        return float(self.odds_of(features(text)[None])[0])

    def odds_of(self, rows: Floats) -> Floats:
        """The same for many texts' `features` [n, width]."""
        return _sigmoid(rows @ self.weights + self.bias)


def features(text: str) -> Floats:
    """The numbers of a text [width]: words and pairs, character runs, and its length."""
    text = text[:_LONGEST]
    length = math.log1p(len(text)) / 10
    words = hashed(word_pieces(text), FEATURES)
    return np.concatenate([words, hashed(character_pieces(text.lower()), FEATURES), [length]])


def learn(rows: Floats, worse: NDArray[np.bool_], strength: float = 1.0) -> Router:
    """Fit a router to `rows` [n, width] by mean log loss + |weights|^2 / (2 strength n), without a penalty
    on the bias. Accelerated gradient descent (Nesterov) with restarts; the same rows give the same router.
    """
    count = len(rows)
    goal, penalty = worse.astype(np.float64), 1 / (strength * count)
    both = np.hstack([rows, np.ones((count, 1))])
    rate = 1 / (np.linalg.norm(both, 2) ** 2 / (4 * count) + penalty)
    mask = np.ones(both.shape[1])
    mask[-1] = 0.0
    now = np.zeros(both.shape[1])
    ahead, pace = now, 1.0
    for _ in range(_STEPS):
        slope = both.T @ (_sigmoid(both @ ahead) - goal) / count + penalty * mask * ahead
        if np.abs(slope).max() < _ENOUGH:
            break
        new = ahead - rate * slope
        next_pace = (1 + math.sqrt(1 + 4 * pace * pace)) / 2
        if slope @ (new - now) > 0:  # it went past the valley: start the momentum anew
            ahead, pace = new, 1.0
        else:
            ahead, pace = new + (pace - 1) / next_pace * (new - now), next_pace
        now = new
    return Router(weights=now[:-1], bias=float(now[-1]))


def save(router: Router, path: Path) -> str:
    """Write the router and return the SHA-256 of its file."""
    stream = io.BytesIO()
    np.savez(stream, weights=router.weights.astype(np.float32), bias=np.float32(router.bias))
    write_bytes(path, stream.getvalue())
    return hashlib.sha256(stream.getvalue()).hexdigest()


def load(path: Path, sha256: str) -> Router:
    """The router in `path`.

    Raises:
        ModelRejected: the file is gone, is another one, or holds no router.
    """
    try:
        content = read_bytes(path)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError
        with np.load(io.BytesIO(content)) as found:
            weights, bias = found["weights"].astype(np.float64), float(found["bias"])
        if weights.shape != (_WIDTH,) or not np.isfinite([*weights, bias]).all():
            raise ValueError
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as problem:
        raise ModelRejected(
            f"The router file {path.name} is not the one that was learnt.",
            "Remove the route and make it again: cloister route hybrid.",
        ) from problem
    return Router(weights=weights, bias=bias)


def stacked(texts: Sequence[str]) -> Floats:
    """`features` of many texts [n, width]."""
    return np.array([features(text) for text in texts]).reshape(len(texts), _WIDTH)


def _sigmoid(value: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(value, -60, 60))))
