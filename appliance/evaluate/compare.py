"""Intervals and paired comparisons that know that rows of one patient are not independent.

Intervals are percentile bootstrap intervals (Efron) that resample whole clusters, the privacy
units, with replacement; a statistic is a function of sums over the rows drawn. Both models of a
comparison see the same draws. Below about 20 clusters such intervals are too narrow: the gate asks
for at least that many. McNemar's exact test takes rows as independent and is given beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from appliance.core.errors import ConfigWrong
from appliance.evaluate.metrics import macro_f1

LEVEL = 0.95
RESAMPLES = 2000
SEED = 20260101
_CELLS = 20_000_000  # draws held at once: 160 MB

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value and the ends of its interval; ends may be infinite."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """For JSON, which has no infinity: None."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {name: end if math.isfinite(end) else None for name, end in ends.items()}


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two models on the same rows. Draws are [resamples], the statistic of each under resampling."""

    base: float
    tuned: float
    difference: Interval
    relative: Interval
    base_draws: Floats = field(repr=False)
    tuned_draws: Floats = field(repr=False)


def clusters_of(units: Sequence[str | None]) -> NDArray[np.int64]:
    """The cluster number of each row; a row without a unit is a cluster of its own."""
    numbers: dict[object, int] = {}
    keys: list[object] = [(row,) if unit is None else unit for row, unit in enumerate(units)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def resampled_sums(
    columns: Floats, clusters: NDArray[np.int64], *, resamples: int = RESAMPLES, seed: int = SEED
) -> Floats:
    """Sums of `columns` [rows, m] over the rows of clusters drawn with replacement: [resamples, m].

    Raises:
        ConfigWrong: no rows, or not one cluster number a row.
    """
    if len(columns) == 0 or len(columns) != len(clusters):
        raise ConfigWrong("There are no rows to compare.", "Evaluate a split that has records.")
    count = int(clusters.max()) + 1
    totals = np.zeros((count, columns.shape[1]))
    np.add.at(totals, clusters, columns)
    random = np.random.default_rng(seed)
    sums, step = [], max(1, _CELLS // count)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = random.integers(0, count, (size, count)) + np.arange(size)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        sums.append(times.astype(np.float64) @ totals)
    return np.concatenate(sums)


def between(value: float, draws: Floats, level: float = LEVEL) -> Interval:
    """`value` with the percentile ends of `draws`; ends are rounded outwards to drawn values."""
    tail = (1 - level) / 2
    low = np.quantile(draws, tail, method="lower")
    high = np.quantile(draws, 1 - tail, method="higher")
    return Interval(value=value, low=float(low), high=float(high))


def share_interval(hits: NDArray[np.bool_], clusters: NDArray[np.int64], level: float = LEVEL) -> Interval:
    """Share of hits. Where all rows agree, resampling sees no spread: then the exact binomial end
    for as many trials as there are clusters (Clopper and Pearson) is given instead.
    """
    ratio = ratio_interval(hits.astype(np.float64), np.ones(len(hits)), clusters, level)
    edge = ((1 - level) / 2) ** (1 / (int(clusters.max()) + 1))
    if hits.all():
        return Interval(value=1.0, low=edge, high=1.0)
    return ratio if hits.any() else Interval(value=0.0, low=0.0, high=1 - edge)


def ratio_interval(
    top: Floats, bottom: Floats, clusters: NDArray[np.int64], level: float = LEVEL
) -> Interval:
    """sum(top) / sum(bottom)."""
    sums = resampled_sums(np.column_stack([top, bottom]), clusters)
    return between(float(top.sum() / bottom.sum()), sums[:, 0] / np.maximum(sums[:, 1], 1e-12), level)


def perplexity_interval(
    nll: Floats, tokens: NDArray[np.int64], clusters: NDArray[np.int64], level: float = LEVEL
) -> Interval:
    """exp(summed nats / tokens)."""
    mean = ratio_interval(nll, tokens.astype(np.float64), clusters, level)
    value, low, high = (math.exp(min(end, 700.0)) for end in (mean.value, mean.low, mean.high))
    return Interval(value=value, low=low, high=high)


def macro_f1_interval(
    gold: NDArray[np.int64],
    predicted: NDArray[np.int64],
    classes: int,
    clusters: NDArray[np.int64],
    level: float = LEVEL,
) -> Interval:
    """Macro F1 by the rule of metrics.py, in each resample over the labels that occur in it."""
    rows = np.arange(len(gold))
    right, given, true = (np.zeros((len(gold), classes)) for _ in range(3))
    true[rows, gold] = 1
    named = predicted >= 0
    given[rows[named], predicted[named]] = 1
    right[rows[gold == predicted], gold[gold == predicted]] = 1
    columns = np.hstack([right, given, true])
    draws = macro_f1(*np.split(resampled_sums(columns, clusters), 3, axis=1))
    return between(float(macro_f1(*np.split(columns.sum(axis=0), 3))), draws, level)


def paired_share(
    base: NDArray[np.bool_], tuned: NDArray[np.bool_], clusters: NDArray[np.int64], level: float = LEVEL
) -> Paired:
    """Shares of hits of two models on the same rows, in points and relative to the base.

    Raises:
        ConfigWrong: not the same number of rows.
    """
    _check_paired(base, tuned)
    columns = np.column_stack([base, tuned, np.ones(len(base))]).astype(np.float64)
    sums = resampled_sums(columns, clusters)
    return _pair(base.mean(), tuned.mean(), sums[:, 0] / sums[:, 2], sums[:, 1] / sums[:, 2], level)


def paired_perplexity(
    base: Floats,
    tuned: Floats,
    tokens: NDArray[np.int64],
    clusters: NDArray[np.int64],
    level: float = LEVEL,
) -> Paired:
    """Perplexities of two models on the same tokens, from each row's summed nats.

    Raises:
        ConfigWrong: not the same number of rows, or no tokens.
    """
    _check_paired(base, tuned)
    if tokens.sum() <= 0:
        raise ConfigWrong("There are no answer tokens to compare.", "Evaluate a split that has answers.")
    sums = resampled_sums(np.column_stack([base, tuned, tokens]).astype(np.float64), clusters)
    total = np.maximum(sums[:, 2], 1.0)
    values = np.exp(np.minimum([base.sum() / tokens.sum(), tuned.sum() / tokens.sum()], 700.0))
    draws = np.exp(np.minimum(sums[:, :2] / total[:, None], 700.0))
    return _pair(values[0], values[1], draws[:, 0], draws[:, 1], level)


def mcnemar(base: NDArray[np.bool_], tuned: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Rows that only the tuned model has right, rows that only the base has, and the two-sided p.

    Exact: the smaller count against Binomial(wins + losses, 1/2), doubled. Rows count as independent.
    """
    _check_paired(base, tuned)
    wins, losses = int((tuned & ~base).sum()), int((base & ~tuned).sum())
    total = wins + losses
    # Logarithms, because 2**-total underflows beyond about a thousand rows.
    tail = [_log_choose(total, count) - total * math.log(2) for count in range(min(wins, losses) + 1)]
    return wins, losses, min(1.0, 2 * math.exp(float(np.logaddexp.reduce(tail))))


def _log_choose(total: int, count: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(count + 1) - math.lgamma(total - count + 1)


def _check_paired(base: NDArray[np.generic], tuned: NDArray[np.generic]) -> None:
    if len(base) != len(tuned) or len(base) == 0:
        raise ConfigWrong(
            f"Two models with {len(base)} and {len(tuned)} scored rows cannot be compared.",
            "Score both on the same records.",
        )


def _pair(base: float, tuned: float, base_draws: Floats, tuned_draws: Floats, level: float) -> Paired:
    return Paired(
        base=float(base),
        tuned=float(tuned),
        difference=between(float(tuned - base), tuned_draws - base_draws, level),
        relative=between(
            float(relative_change(np.array([base]), np.array([tuned]))[0]),
            relative_change(base_draws, tuned_draws),
            level,
        ),
        base_draws=base_draws,
        tuned_draws=tuned_draws,
    )


def relative_change(base: Floats, tuned: Floats) -> Floats:
    """tuned / base - 1; from 0 it is infinite, and 0 where both are 0."""
    change = tuned / np.where(base > 0, base, 1.0) - 1.0
    return np.where(base > 0, change, np.where(tuned > 0, np.inf, 0.0))
