"""Exposure of planted secrets (Carlini et al. 2019): log2 of how far up the true code is among random ones.

Of R codes, one of them the planted one, exposure = log2 R - log2 rank. Under a model that never saw it
the rank is uniform whatever the model thinks of codes, because all codes were drawn alike; the mean
exposure is then log2 R - (log2 R!) / R, about 1.44 bits.
"""

from __future__ import annotations

from math import lgamma, log, log2

import numpy as np
from numpy.typing import NDArray

from appliance.privacy.attacks.membership import Estimate

CODES = 256  # the planted one and as many others as make this
LEAST = 8  # secrets for an interval
_RESAMPLES = 2000

Floats = NDArray[np.float64]


def exposure(losses: Floats) -> float:
    """Bits, from the losses of all codes, the planted one first; ties count against the attack."""
    rank = int((losses[1:] <= losses[0]).sum()) + 1
    return log2(len(losses)) - log2(rank)


def unseen(codes: int = CODES) -> float:
    """Mean exposure, in bits, of a secret that was never planted."""
    return log2(codes) - lgamma(codes + 1) / log(2) / codes


def mean_exposure(bits: Floats, seed: int = 0) -> Estimate:
    """Mean over secrets with a percentile bootstrap over them (95 %)."""
    drawn = np.random.default_rng(seed).choice(bits, (_RESAMPLES, len(bits))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value=float(bits.mean()), low=float(low), high=float(high))
