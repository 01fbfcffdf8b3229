"""Test C: how far apart canaries that were in and canaries that were out score, as Gaussian noise has it.

mu = (mean_in - mean_out) / sd_out is the separation of a Gaussian mechanism (Dong, Roth and Su 2022);
epsilon follows from delta. It sees errors far smaller than test B does, but it assumes that scores are
normal: it is an estimate, never a certified bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

CONFIDENCE = 0.95
_LARGEST = 500.0  # beyond, exp overflows and nothing is private


@dataclass(frozen=True, kw_only=True)
class Separation:
    """`mu` as measured, and its lower confidence limit, not below 0; infinite where there is no noise."""

    mu: float
    low: float
    inside: int
    outside: int


def separation(
    scores: NDArray[np.float64], inside: NDArray[np.bool_], confidence: float = CONFIDENCE
) -> Separation:
    """Mu and its one-sided lower limit; there must be two canaries or more on each side."""
    there, away = scores[inside], scores[~inside]
    spread = float(away.std(ddof=1))
    gap = float(there.mean() - away.mean())
    if spread == 0:
        mu = inf if gap > 0 else 0.0
        return Separation(mu=mu, low=mu, inside=len(there), outside=len(away))
    mu = gap / spread
    error = standard_error(mu, len(there), len(away), float(there.std(ddof=1)) / spread)
    low = max(0.0, mu - float(norm.ppf(confidence)) * error)
    return Separation(mu=mu, low=low, inside=len(there), outside=len(away))


def standard_error(mu: float, inside: int, outside: int, spread_ratio: float = 1.0) -> float:
    """Of the estimate of mu, to first order: that of both means and of the standard deviation."""
    return sqrt(spread_ratio**2 / inside + 1 / outside + mu**2 / (2 * (outside - 1)))


def delta_of(epsilon: float, mu: float) -> float:
    """phi(-eps/mu + mu/2) - e^eps phi(-eps/mu - mu/2) (Balle and Wang 2018, theorem 8)."""
    second = exp(min(_LARGEST, epsilon + float(norm.logcdf(-epsilon / mu - mu / 2))))
    return float(norm.cdf(-epsilon / mu + mu / 2)) - second


def epsilon_of(mu: float, delta: float) -> float:
    """The epsilon that a Gaussian mechanism of separation `mu` has at `delta`."""
    if mu <= 0 or delta_of(0.0, mu) <= delta:
        return 0.0
    high = 1.0
    while delta_of(high, mu) > delta:
        high *= 2
        if high > _LARGEST:
            return inf
    return float(brentq(lambda epsilon: delta_of(epsilon, mu) - delta, 0.0, high, xtol=1e-6))


def seen_from(mu: float, canaries: int, claim: float, delta: float, confidence: float = CONFIDENCE) -> float:
    """By what factor an honest `mu` must be off for the lower limit to pass the claim: what noise too
    small, or a bound too large, by that factor would be seen more often than not. Infinite: none.
    """

    def excess(factor: float) -> float:
        seen = factor * mu
        error = standard_error(seen, canaries // 2, canaries // 2)
        return epsilon_of(max(0.0, seen - float(norm.ppf(confidence)) * error), delta) - claim

    factor = 1.0
    while excess(factor) <= 0:
        factor *= 1.05
        if factor > 1e3:
            return inf
    return factor
