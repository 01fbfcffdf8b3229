"""What rounds of noisy sums tell of a site as a whole: epsilon at a given delta.

Unit: a site, that is, everything its change in a round depends on. Adjacency: the same cohort, with one
site's change replaced by zeros; so the sensitivity of the sum is the largest norm of one site's weighted
integers. (For a change replaced by another one, sensitivity and noise multiplier count double and half.) Who
takes part, and the weights, are public. It says nothing of single records of a site beyond that: their unit
and ledger are others.

Who sees what. A coordinator that keeps to the protocol, and c colluding sites with it, see the sum of the
survivors, at least `threshold` of them, of whose noise they know c parts: `honest_sites(n, t, c)` parts are
left. A coordinator that lies (`lying`) can tell sites different survivors; what it can open then is the sum
of at least as many honest sites as `least_together` says, and nothing at all of one site alone, as long as c
< 2t - n.

Mechanism: the sum of m independent discrete Gaussians of parameter s in each coordinate. Its ratio to a
discrete Gaussian of variance m s**2 is within exp(+-tau), tau = 10 * sum over k < m of exp(-2 pi**2 s**2 k /
(k + 1)) for s >= 1/2 (Kairouz, Liu and Steinke 2021, theorem 1). With P the sum moved by x, and since the
moments of a discrete Gaussian are below a Gaussian's, E_P[(P/Q)**(a - 1)] <= exp((a - 1)(a x**2 / (2 m s**2)
+ 2 tau)), which is the Renyi divergence used here, summed over coordinates and rounds. It becomes epsilon as
in Canonne, Kamath and Steinke 2020, proposition 12. The sampler's own distance from exact is not counted
(appliance/privacy/noise.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log, log1p, pi

from appliance.core.errors import PrivacyRefused
from federated.secagg.federation import least_threshold
from federated.secagg.lattice import Lattice
from federated.secagg.noise import LEAST_SIGMA

_ORDERS = tuple(
    1 + exp(step / 50) for step in range(-600, 701)
)  # any order gives a bound; 2 % apart costs nothing


@dataclass(frozen=True, kw_only=True)
class Release:
    """One noisy sum: sensitivity and the sigma of one site in lattice steps; how many sites' noise counts."""

    sensitivity: float
    sigma: float
    honest: int
    values: int


def release(lattice: Lattice, honest: int) -> Release:
    """The sum of a round under `lattice` with the noise of `honest` sites.

    Raises:
        PrivacyRefused: the lattice has no noise, or too little to account for, or nobody is honest.
    """
    if honest < 1 or lattice.sigma < LEAST_SIGMA:
        raise PrivacyRefused(
            "The sum has no noise that can be accounted for.", "Set a noise for the federation's sites."
        )
    sensitivity = lattice.norm * lattice.most
    return Release(sensitivity=sensitivity, sigma=lattice.sigma, honest=honest, values=lattice.values)


def honest_sites(sites: int, threshold: int, colluding: int, *, lying: bool = False) -> int:
    """How many sites' noise is in every sum that can be opened and not known to who opens it.

    Raises:
        PrivacyRefused: so many colluding sites can open a single site's vector.
    """
    if not lying:
        if colluding >= threshold:
            raise PrivacyRefused(
                f"{colluding} of {sites} sites together have the masks of all.", "Raise the threshold."
            )
        return threshold - colluding
    return least_together(sites, threshold, colluding)


def fewest_honest(minimum: int, sites: int, colluding: int, *, lying: bool = False) -> int:
    """`honest_sites` of the worst plan of `minimum` to `sites` sites, for it is the coordinator who plans.

    Raises:
        PrivacyRefused: some plan lets so many colluding sites open a single site's vector.
    """
    plans = range(minimum, sites + 1)
    return min(honest_sites(plan, least_threshold(plan), colluding, lying=lying) for plan in plans)


def least_together(sites: int, threshold: int, colluding: int) -> int:
    """The fewest honest sites whose sum a lying coordinator with `colluding` sites can open.

    In a cohort of m each of the m - c honest sites takes at most m - t others for dropped, and t - c such
    answers drop one. It is 2 or more, but where no more than one site is honest.

    Raises:
        PrivacyRefused: c >= 2t - n, with which both secrets of one site can be had.
    """
    if threshold < least_threshold(sites) or colluding >= 2 * threshold - sites:
        raise PrivacyRefused(
            f"{colluding} lying sites of {sites} can open a single vector at a threshold of {threshold}.",
            "Raise the threshold.",
        )
    return min(
        asked - colluding - (asked - colluding) * (asked - threshold) // (threshold - colluding)
        for asked in range(threshold, sites + 1)
    )


def tau(sigma: float, summands: int) -> float:
    """How far the sum of discrete Gaussians is from one, as a log ratio in each coordinate.

    Raises:
        PrivacyRefused: sigma is below 1/2, where the bound is not proven.
    """
    if sigma < LEAST_SIGMA:
        raise PrivacyRefused("The noise is too small to account for.", "Make the scale larger.")
    return 10 * sum(exp(-2 * pi**2 * sigma**2 * k / (k + 1)) for k in range(1, summands))


def renyi(one: Release, order: float) -> float:
    """The Renyi divergence of one release at an order above 1."""
    variance = one.honest * one.sigma**2
    return order * one.sensitivity**2 / (2 * variance) + 2 * tau(one.sigma, one.honest) * one.values


def epsilon(history: Sequence[tuple[Release, int]], delta: float) -> float:
    """Upper bound of epsilon after releases, each made its number of times; 0 for none.

    Raises:
        PrivacyRefused: delta is not between 0 and 1.
    """
    if not 0 < delta < 1:
        raise PrivacyRefused("Delta is between 0 and 1.", "Take one below 1 in the number of sites.")
    history = [(one, times) for one, times in history if times]
    if not history:
        return 0.0
    slope = sum(times * (renyi(one, 2.0) - renyi(one, 1.0)) for one, times in history)
    fixed = sum(times * 2 * tau(one.sigma, one.honest) * one.values for one, times in history)
    best = inf
    for order in _ORDERS:
        kept = log1p(-1 / order) - (log(delta) + log(order)) / (order - 1)
        best = min(best, order * slope + fixed + kept)
    return max(0.0, best)


def sigma_for(target: float, *, delta: float, rounds: int, lattice: Lattice, honest: int) -> float:
    """The least noise a site must add, in lattice steps, so that `rounds` rounds cost at most `target`.

    To 0.1 %; `lattice.sigma` is not looked at.

    Raises:
        PrivacyRefused: no noise that a lattice could hold does.
    """
    sensitivity = lattice.norm * lattice.most

    def cost(sigma: float) -> float:
        one = Release(sensitivity=sensitivity, sigma=sigma, honest=honest, values=lattice.values)
        return epsilon([(one, rounds)], delta)

    low, high = LEAST_SIGMA, float(1 << 32)
    if target <= 0 or cost(high) > target:
        raise PrivacyRefused(
            "No noise is enough for this epsilon.", "Raise epsilon, or ask for fewer rounds."
        )
    if cost(low) <= target:
        return low
    while high / low > 1.001:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if cost(middle) <= target else (middle, high)
    return high
