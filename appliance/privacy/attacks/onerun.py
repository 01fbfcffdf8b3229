"""Test B: a lower bound on epsilon from one run (Steinke, Nasr and Jagielski 2023, arXiv 2305.08846).

m canaries, each in by a fair coin; the auditor guesses r of the coins from the canaries' scores and
is right v times. If the mechanism were (epsilon, delta)-private, so many right guesses would have at
most the probability `p_value` (their corollary 5.4 and appendix D). Epsilon is refuted when that is
below beta; the bound is the largest epsilon refuted. It holds whatever the scores are, as long as
neither they nor r were chosen after the coins were seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import binom

BETA = 0.05
_LARGEST = 64.0  # no audit that fits into a machine shows more
_SHARES = (0.05, 0.1, 0.25, 0.9)  # of the canaries guessed at; fixed, each pays a part of beta


@dataclass(frozen=True, kw_only=True)
class Bound:
    """`epsilon` is the bound, `ceiling` what it would be had every guess been right; for the best of
    the shares that were tried: `right` of `guesses`.
    """

    epsilon: float
    ceiling: float
    guesses: int
    right: int
    canaries: int


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """The most probable it is that `right` or more of the guesses are, under (epsilon, delta)-DP.

    P[Bin(r, q) >= v] + 2 m delta max_i P[v - i <= Bin(r, q) < v] / i, with q = e^eps / (1 + e^eps).
    """
    chance = float(expit(epsilon))
    tail = float(binom.sf(right - 1, guesses, chance))
    if delta == 0 or right == 0:
        return min(tail, 1.0)
    steps = np.arange(1, right + 1)
    below = np.cumsum(binom.pmf(right - steps, guesses, chance))
    return min(tail + 2 * canaries * delta * float((below / steps).max()), 1.0)


def epsilon_bound(canaries: int, guesses: int, right: int, *, delta: float, beta: float = BETA) -> float:
    """The largest epsilon that is refuted at level `beta`, rounded down to 1e-6; 0 where none is."""
    if p_value(canaries, guesses, right, 0.0, delta) >= beta:
        return 0.0
    low, high = 0.0, 1.0
    while high < _LARGEST and p_value(canaries, guesses, right, high, delta) < beta:
        low, high = high, 2 * high
    while high - low > 1e-6:
        middle = (low + high) / 2
        refuted = p_value(canaries, guesses, right, middle, delta) < beta
        low, high = (middle, high) if refuted else (low, middle)
    return low


def right_guesses(scores: NDArray[np.float64], inside: NDArray[np.bool_], guesses: int) -> int:
    """How many are right when the top half of `guesses` is called in and the bottom half out."""
    order = np.argsort(scores, kind="stable")
    half = guesses // 2
    return int(inside[order[len(order) - half :]].sum() + (~inside[order[:half]]).sum())


def bound(
    scores: NDArray[np.float64],
    inside: NDArray[np.bool_],
    *,
    delta: float,
    beta: float = BETA,
    shares: Sequence[float] = _SHARES,
) -> Bound:
    """The best bound over `shares` of the canaries guessed at, each at beta / len(shares)."""
    count, level = len(scores), beta / len(shares)
    tried = []
    for share in shares:
        guesses = max(2, int(share * count) // 2 * 2)
        right = right_guesses(scores, inside, guesses)
        tried.append((epsilon_bound(count, guesses, right, delta=delta, beta=level), guesses, right))
    epsilon, guesses, right = max(tried)
    return Bound(
        epsilon=epsilon,
        ceiling=ceiling(count, delta=delta, beta=beta, shares=shares),
        guesses=guesses,
        right=right,
        canaries=count,
    )


def ceiling(canaries: int, *, delta: float, beta: float = BETA, shares: Sequence[float] = _SHARES) -> float:
    """The bound that `bound` would give if every guess were right: no run can show more."""
    sizes = [max(2, int(share * canaries) // 2 * 2) for share in shares]
    level = beta / len(shares)
    return max(epsilon_bound(canaries, size, size, delta=delta, beta=level) for size in sizes)
