"""Two shares compared: an exact test, an interval, and how many answers it takes to know. Pure.

Answers count as independent of each other; many from one person make every figure here too sure.
Looking again and again until a test says yes finds differences that are not there, so `compare` gives no
verdict before both sides have as many answers as A's rate so far and the smallest difference worth seeing
ask for (`needed`), whatever the test says by then.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from appliance.core.errors import ConfigWrong

LEVEL = 0.95
POWER = 0.8
DIFFERENCE = 0.1
_TIE = 1 + 1e-7  # tables as unlikely as ours, but for rounding, count as such


@dataclass(frozen=True, kw_only=True)
class Share:
    """`hits` of `of` answers."""

    hits: int
    of: int

    @property
    def rate(self) -> float | None:
        """None before the first answer."""
        return self.hits / self.of if self.of else None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """B against A. `difference`, `low` and `high` are B's share minus A's; `missing` answers a side."""

    verdict: str
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    needed: int
    missing_a: int
    missing_b: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def compare(a: Share, b: Share, *, difference: float = DIFFERENCE, better: str = "more") -> Comparison:
    """What is known of A and B. `better` says whether "more" or "fewer" hits are good.

    Raises:
        ConfigWrong: `difference` is not between 0 and 1.
    """
    known = a.rate if a.of else None
    need = needed(0.5 if known is None else known, difference)
    missing_a, missing_b = max(0, need - a.of), max(0, need - b.of)
    if a.rate is None or b.rate is None:
        figures: dict[str, float | None] = {"difference": None, "low": None, "high": None, "p": None}
    else:
        low, high = difference_interval(a, b)
        figures = {"difference": b.rate - a.rate, "low": low, "high": high, "p": fisher(a, b)}
    verdict = _verdict(figures, missing_a, missing_b, difference, better)
    return Comparison(verdict=verdict, **figures, needed=need, missing_a=missing_a, missing_b=missing_b)


def _verdict(
    figures: dict[str, float | None], missing_a: int, missing_b: int, difference: float, better: str
) -> str:
    p, found = figures["p"], figures["difference"]
    if missing_a or missing_b or p is None or found is None:
        return f"not enough answers yet: {missing_a} more for A, {missing_b} more for B"
    if p < 1 - LEVEL:
        return "B is better" if (found > 0) == (better == "more") else "A is better"
    return f"no difference of {difference * 100:g} points or more was seen"


def fisher(a: Share, b: Share) -> float:
    """Two-sided p of Fisher's exact test: all tables with these sums that are no likelier than this one.

    The hypergeometric odds come from the ratio of neighbours, in logarithms, so that no count is too
    large.
    """
    hits, total = a.hits + b.hits, a.of + b.of
    low, high = max(0, hits - b.of), min(hits, a.of)
    import numpy as np  # 11 MB that an endpoint, which only counts, does without

    k = np.arange(low, high, dtype=np.float64)
    steps = np.log((a.of - k) * (hits - k)) - np.log((k + 1) * (total - a.of - hits + k + 1))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    odds = np.exp(logs - logs.max())
    return min(1.0, float(odds[odds <= odds[a.hits - low] * _TIE].sum() / odds.sum()))


def wilson(share: Share, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a share; (0, 1) before the first answer."""
    if share.of == 0:
        return 0.0, 1.0
    z, n, rate = _z(1 - (1 - level) / 2), share.of, share.hits / share.of
    middle = rate + z * z / (2 * n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def difference_interval(a: Share, b: Share, level: float = LEVEL) -> tuple[float, float]:
    """The interval of B's share minus A's from both Wilson intervals (Newcombe 1998, method 10)."""
    (low_a, high_a), (low_b, high_b) = wilson(a, level), wilson(b, level)
    rate_a, rate_b = a.rate or 0.0, b.rate or 0.0
    middle = rate_b - rate_a
    return (
        middle - math.hypot(rate_b - low_b, high_a - rate_a),
        middle + math.hypot(high_b - rate_b, rate_a - low_a),
    )


def needed(rate: float, difference: float, *, level: float = LEVEL, power: float = POWER) -> int:
    """Answers a side, so that shares `rate` and `rate` +- `difference` are told apart with this power.

    Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions, 2003, formula 4.14; of the two
    directions the one that takes more.

    Raises:
        ConfigWrong: `difference` is not between 0 and 1.
    """
    if not 0 < difference < 1:
        raise ConfigWrong(
            f"A difference of {difference:g} cannot be looked for.", "Give one like 0.1: ten points."
        )
    others = [other for other in (rate + difference, rate - difference) if 0 <= other <= 1]
    sizes = []
    for other in others or [1.0 if rate < 0.5 else 0.0]:
        both = (rate + other) / 2
        spread = _z(1 - (1 - level) / 2) * math.sqrt(2 * both * (1 - both))
        spread += _z(power) * math.sqrt(rate * (1 - rate) + other * (1 - other))
        sizes.append(math.ceil((spread / (other - rate)) ** 2))
    return max(sizes)


def _z(quantile: float) -> float:
    return NormalDist().inv_cdf(quantile)
