"""Test A: does the noise have its size, is it fresh, is every sum bounded, are batches drawn as said?

Each function checks figures against the law they must follow and returns what it saw with the
interval it allows. `level` is the chance that an honest run is called wrong, over all steps at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, chi2

LEVEL = 1e-3
MOST_CORRELATION = 4.0  # standard errors; 6e-5 of honest pairs lie beyond
ROUNDING = 1e-5  # what floating point may add to a norm

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """`worst` is the value furthest from what is allowed, `wrong` how many are outside."""

    right: bool
    worst: float
    low: float
    high: float
    wrong: int = 0


def noise_interval(count: int, level: float = LEVEL) -> tuple[float, float]:
    """Where the ratio of sample to true standard deviation of `count` Gaussian numbers lies.

    With a known mean of zero, count x ratio**2 is chi-square with `count` degrees of freedom.
    """
    low, high = chi2.ppf([level / 2, 1 - level / 2], count)
    return sqrt(low / count), sqrt(high / count)


def check_noise(ratios: Sequence[float], count: int, level: float = LEVEL) -> Checked:
    """Ratios of real to promised standard deviation, one a step, each from `count` coordinates.

    Half of the level goes to the steps one by one (Bonferroni), half to all of them pooled. `low` and
    `high` are those of the pooled ratio.
    """
    found = np.asarray(ratios, dtype=np.float64)
    each = noise_interval(count, level / 2 / len(found))
    low, high = noise_interval(count * len(found), level / 2)
    pooled = float(np.sqrt(np.mean(found**2)))
    outside = ~((found >= each[0]) & (found <= each[1]))  # what is no number is outside
    worst = float(found[np.argmax(np.abs(np.nan_to_num(found, nan=inf) - 1))])
    return Checked(
        right=not outside.any() and low <= pooled <= high,
        worst=worst if outside.any() else pooled,
        low=low,
        high=high,
        wrong=int(outside.sum()),
    )


def check_batches(sizes: Sequence[int], candidates: int, rate: float, level: float = LEVEL) -> Checked:
    """Batch sizes against Binomial(candidates, rate): their sum, their spread, and each alone.

    A third of the level for each. The spread (sum of squared standardised sizes, about chi-square)
    tells fixed batches from Poisson ones. `low` and `high` are those of the mean size.
    """
    found = np.asarray(sizes, dtype=np.float64)
    steps, third = len(found), level / 3
    law = binom(candidates * steps, rate)
    low, high = law.ppf(third / 2) / steps, law.ppf(1 - third / 2) / steps
    alone = binom(candidates, rate)
    least, most = alone.ppf(third / 2 / steps), alone.ppf(1 - third / 2 / steps)
    outside = (found < least) | (found > most)
    variance = candidates * rate * (1 - rate)
    spread = float(((found - candidates * rate) ** 2).sum() / variance) if variance else steps
    near, far = chi2.ppf([third / 2, 1 - third / 2], steps)
    # the chi-square needs batches that are nearly normal; small ones are judged by sum and one by one
    spread_right = variance < 10 or near <= spread <= far
    mean = float(found.mean())
    return Checked(
        right=bool(low <= mean <= high and not outside.any() and spread_right),
        worst=mean,
        low=float(low),
        high=float(high),
        wrong=int(outside.sum()),
    )


def correlation(first: Floats, second: Floats) -> float:
    """Pearson's r around zero means; 1 where both are the same, also without any noise."""
    scale = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / scale if scale else 1.0


def check_independent(pairs: Sequence[tuple[Floats, Floats]]) -> Checked:
    """Noise vectors that must have nothing to do with each other: |r| < 4 / sqrt(n) for each pair."""
    found = [correlation(first, second) for first, second in pairs]
    limits = [MOST_CORRELATION / sqrt(len(first)) for first, _ in pairs]
    wrong = sum(abs(r) >= limit for r, limit in zip(found, limits, strict=True))
    worst = max(found, key=abs)
    return Checked(right=wrong == 0, worst=worst, low=-min(limits), high=min(limits), wrong=wrong)


def check_norms(norms: Sequence[float]) -> Checked:
    """Norms of what single units added to a sum, over the clip bound: none above 1 (rounding apart)."""
    high = 1 + ROUNDING
    wrong = sum(not norm <= high for norm in norms)
    return Checked(right=wrong == 0, worst=max(norms), low=0.0, high=high, wrong=wrong)
