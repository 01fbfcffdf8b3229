"""Gaussian noise that survives floating-point attacks: a CSPRNG and an integer lattice.

A clipped gradient is rounded toward zero to multiples of gamma = C / 2**20, so that rounding never
raises its norm and sums are exact; the noise is a discrete Gaussian on the same lattice (Canonne,
Kamath and Steinke 2020, algorithm 3), drawn from AES-256-CTR keyed by the operating system. The
key is never stored: two starts never draw the same noise. Uniforms have 53 bits; the difference
to the exact sampler is below 2**-50 in total variation per coordinate and not part of delta.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

LATTICE = 2**20
_BLOCK = 2**14  # drawn at a time: its arrays stay in the cache, which is three times faster


class Keystream:
    """Random numbers from AES-256-CTR under a fresh key, or one that was made for this run alone."""

    def __init__(self, key: bytes | None = None) -> None:
        start = os.urandom(16) if key is None else bytes(16)
        self._cipher = Cipher(algorithms.AES256(key or os.urandom(32)), modes.CTR(start)).encryptor()

    def uniform(self, count: int) -> NDArray[np.float64]:
        """`count` numbers in the open interval (0, 1)."""
        words = np.frombuffer(self._cipher.update(bytes(8 * count)), dtype=np.uint64)
        found = (words >> np.uint64(11)).astype(np.float64)
        found += 0.5
        found *= 2.0**-53
        return found


def discrete_gaussian(count: int, sigma: float, stream: Keystream) -> NDArray[np.int64]:
    """`count` integers with P(x) proportional to exp(-x**2 / (2 sigma**2)).

    Rejection from a discrete Laplace of scale t = floor(sigma) + 1.
    """
    drawn = np.empty(count, dtype=np.int64)
    scale = np.floor(sigma) + 1.0
    filled = 0
    while filled < count:
        size = min(_BLOCK, int(1.5 * (count - filled)) + 64)
        first, second, coin = stream.uniform(3 * size).reshape(3, size)
        laplace = np.floor(-scale * np.log(first)) - np.floor(-scale * np.log(second))
        accept = np.exp(-((np.abs(laplace) - sigma**2 / scale) ** 2) / (2 * sigma**2))
        kept = laplace[coin < accept][: count - filled]
        drawn[filled : filled + kept.size] = kept
        filled += kept.size
    return drawn


class Drawing:
    """Discrete Gaussians of one size, drawn on a thread while a GPU is at work (`ahead`), or when asked for.

    One thread: more of them hinder each other and the one that keeps the GPU busy (bench/step.py).
    """

    def __init__(self, count: int, sigma: float, *, ahead: bool) -> None:
        self._draw = partial(discrete_gaussian, count, sigma, Keystream())
        self._pool = ThreadPoolExecutor(1, "noise") if ahead else None

    def begin(self) -> Callable[[], NDArray[np.int64]]:
        """Begin to draw; what is returned waits for it and gives it."""
        return self._draw if self._pool is None else self._pool.submit(self._draw).result


def gaussian(count: int, sigma: float) -> NDArray[np.float64]:
    """`count` Gaussian numbers of standard deviation `sigma`, on the lattice sigma / 2**20."""
    return discrete_gaussian(count, float(LATTICE), Keystream()).astype(np.float64) * (sigma / LATTICE)
