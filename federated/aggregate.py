"""Averages of admitted updates, slice by slice: memory does not grow with the number of sites.

Every average reads the packed updates where they lie (`Packed.read` gives any slice), in the order of the
sites' names and in float64, so that the same updates give the same bytes again after a crash.

    mean          sum of w_i d_i / sum of w_i                  (FedAvg; McMahan et al. 2017)
    trimmed mean  per value, without the share `trim` at both ends, unweighted   (Yin et al. 2018)
    median        per value, unweighted                        (Yin et al. 2018)
    krum          the update nearest to its n - f - 2 nearest  (Blanchard et al. 2017)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from appliance.core.errors import ConfigWrong
from federated.layout import Array
from federated.packing import BLOCK

Rule = Literal["mean", "trimmed-mean", "median", "krum"]
_BUDGET = 1 << 20  # float64 values in memory at a time, over all sites


@dataclass(frozen=True, kw_only=True)
class Packed:
    """One admitted update: `read(start, end)` gives a slice of its change, `weight` its units, clamped."""

    site: str
    weight: int
    read: Callable[[int, int], Array]


def weights(units: dict[str, int], most: float) -> dict[str, int]:
    """Units as weights, none above `most` times the median: a site's word about its size buys only so much.

    Raises:
        ConfigWrong: `most` is below 1.
    """
    if not most >= 1:
        raise ConfigWrong("The clamp of weights is at least 1.", "Take 2, or leave it out.")
    ceiling = int(most * float(np.median(list(units.values())))) if units else 0
    return {site: min(count, max(1, ceiling)) for site, count in units.items()}


def least_sites(rule: Rule, trim: float = 0.2) -> int:
    """How many updates `rule` needs so that one bad one is outweighed."""
    if rule == "krum":
        return 5  # n >= 2f + 3 with f = 1
    if rule == "trimmed-mean":
        return max(3, int(np.ceil(1 / trim)))
    return 3 if rule == "median" else 1


def average(rule: Rule, updates: Sequence[Packed], values: int, *, trim: float = 0.2) -> Array:
    """The average of `updates` over `values` numbers.

    Raises:
        ConfigWrong: there are fewer updates than `least_sites`.
    """
    if len(updates) < least_sites(rule, trim):
        raise ConfigWrong(
            f"{rule} needs {least_sites(rule, trim)} updates; there are {len(updates)}.",
            "Wait for more sites, or average with the mean.",
        )
    ordered = sorted(updates, key=lambda one: one.site)
    if rule == "krum":
        return _mean([ordered[_krum(ordered, values)]], values)
    if rule == "mean":
        return _mean(ordered, values)
    cut = int(trim * len(ordered)) if rule == "trimmed-mean" else (len(ordered) - 1) // 2
    result = np.empty(values, dtype=np.float32)
    for start, end, stack in _stacks(ordered, values):
        stack.sort(axis=0)
        result[start:end] = stack[cut : len(ordered) - cut].mean(axis=0)
    return result


def _mean(updates: Sequence[Packed], values: int) -> Array:
    total, whole = np.zeros(values, dtype=np.float64), sum(one.weight for one in updates)
    for one in updates:
        for start, end in _slices(values, 1):
            total[start:end] += one.read(start, end).astype(np.float64) * one.weight
    return (total / whole).astype(np.float32)


def _krum(updates: Sequence[Packed], values: int) -> int:
    count = len(updates)
    products = np.zeros((count, count))
    for _, _, stack in _stacks(updates, values):
        products += stack @ stack.T
    squares = np.diag(products)
    apart = squares[:, None] + squares[None, :] - 2 * products
    bad = (count - 3) // 2
    nearest = np.sort(apart, axis=1)[:, 1 : count - bad - 1]  # the first is the update itself
    return int(np.argmin(nearest.sum(axis=1)))


def _stacks(updates: Sequence[Packed], values: int) -> Iterator[tuple[int, int, NDArray[np.float64]]]:
    for start, end in _slices(values, len(updates)):
        stack = np.empty((len(updates), end - start))
        for row, one in zip(stack, updates, strict=True):
            row[:] = one.read(start, end)
        yield start, end, stack


def _slices(values: int, sites: int) -> Iterator[tuple[int, int]]:
    size = max(1, _BUDGET // sites // BLOCK) * BLOCK
    for start in range(0, values, size):
        yield start, min(values, start + size)
