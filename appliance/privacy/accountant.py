"""What a history of noisy steps costs: epsilon at a given delta.

Mechanism: Poisson sampling with rate q, Gaussian noise of standard deviation noise_multiplier x
max_grad_norm on the sum of clipped gradients. Sampled are units, or the records of units that have
at most `draws` of them; then a unit enters a step up to `draws` times (Charles et al. 2024).
Adjacency in both cases: add or remove one unit; the larger of both counts. Histories compose by
their privacy loss distributions (pld.py), never by adding epsilons. The figure is an upper bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from math import exp, inf, log

from appliance.core.errors import PrivacyRefused

ACCOUNTANT = "privacy loss distribution, add and remove"
_SMALLEST, _LARGEST = 0.3, 200.0


@dataclass(frozen=True, kw_only=True)
class Steps:
    """`steps` noisy steps with one setting."""

    noise_multiplier: float
    sample_rate: float
    steps: int
    draws: int = 1


def epsilon(history: Sequence[Steps], delta: float) -> float:
    """Upper bound of epsilon after `history`; 0 for an empty one, infinite without noise."""
    merged = merge(history)
    if not merged:
        return 0.0
    if any(part.noise_multiplier <= 0 for part in merged):
        return inf
    return _epsilon(tuple(merged), delta)


@lru_cache(maxsize=256)  # sites of a federation plan alike
def _epsilon(merged: tuple[Steps, ...], delta: float) -> float:
    from appliance.privacy import pld

    return max(
        pld.epsilon(
            [
                (
                    pld.Pair(part.noise_multiplier, pld.entries(part.sample_rate, part.draws), adding),
                    part.steps,
                )
                for part in merged
            ],
            delta,
        )
        for adding in (False, True)
    )


def merge(history: Sequence[Steps]) -> list[Steps]:
    """The same history with equal settings joined: composition does not depend on order."""
    totals: dict[Steps, int] = {}
    for part in history:
        setting = replace(part, steps=0)
        totals[setting] = totals.get(setting, 0) + part.steps
    return [replace(setting, steps=count) for setting, count in totals.items() if count]


def noise_for(target: float, *, delta: float, run: Steps, spent: Sequence[Steps] = ()) -> float:
    """The smallest noise multiplier (to 0.1 %) with which `spent` and `run` stay within `target`.

    The one in `run` is not looked at.

    Raises:
        PrivacyRefused: no noise multiplier up to 200 does.
    """

    from scipy.optimize import brentq

    def cost(noise: float) -> float:
        return epsilon([*spent, replace(run, noise_multiplier=noise)], delta)

    @cache
    def gap(log_noise: float) -> float:
        return log(min(max(cost(exp(log_noise)), 1e-9), 1e9) / target)

    low = high = 0.0
    while gap(high) > 0:
        low, high = high, high + log(2)
        if high > log(_LARGEST):
            raise PrivacyRefused(
                f"Epsilon {target:g} cannot be met: what was spent before already uses it up.",
                "Raise --epsilon within the budget, or use a dataset that has budget left.",
            )
    while gap(low) <= 0:
        if low <= log(_SMALLEST):
            return _SMALLEST
        low, high = max(log(_SMALLEST), low - log(2)), low
    root = float(brentq(gap, low, high, xtol=5e-4))
    while gap(root) > 0:
        root += 5e-4
    return exp(root)
