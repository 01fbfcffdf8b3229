"""Site-level privacy: epsilon against the exact divergence, and the noise of the fewest sites."""

from __future__ import annotations

from math import exp, log, sqrt
from typing import Any

import dp_accounting
import numpy as np
import pytest
from scipy.stats import norm

from appliance.core.errors import PrivacyRefused
from appliance.privacy.noise import Keystream
from federated.secagg.federation import least_threshold
from federated.secagg.lattice import Lattice
from federated.secagg.noise import draw, site_sigma
from federated.secagg.privacy import (
    Release,
    epsilon,
    fewest_honest,
    honest_sites,
    least_together,
    release,
    renyi,
    sigma_for,
    tau,
)

DELTA = 1e-5


def masses(sigma: float, summands: int) -> np.ndarray:
    """The exact distribution of a sum of discrete Gaussians, in the middle of an array of odd length."""
    reach = int(14 * sigma) + 3
    one = np.exp(-(np.arange(-reach, reach + 1, dtype=np.longdouble) ** 2) / (2 * sigma**2))
    one /= one.sum()
    found = one
    for _ in range(summands - 1):
        found = np.convolve(found, one)
    return found


def divergence(mass: np.ndarray, moved: int, order: float) -> float:
    """Renyi divergence between the distribution and itself moved; tails too thin for numbers are left out."""
    p, q = mass[moved:], mass[:-moved]
    there = (p > 1e-250) & (q > 1e-250)
    return float(np.log(np.sum(p[there] ** order * q[there] ** (1 - order))) / (order - 1))


@pytest.mark.parametrize(
    "sigma, summands, moved", [(0.5, 2, 1), (0.6, 3, 2), (1.0, 5, 3), (2.0, 4, 5), (3.0, 8, 9)]
)
def test_the_divergence_is_above_the_exact_one_and_close_to_it(
    sigma: float, summands: int, moved: int
) -> None:
    mass = masses(sigma, summands)
    one = Release(sensitivity=float(moved), sigma=sigma, honest=summands, values=1)
    for order in (1.1, 1.5, 2.0, 4.0, 8.0):
        exact = divergence(mass, moved, order)
        assert exact <= renyi(one, order) * (1 + 1e-9)
        if sigma >= 1:
            assert renyi(one, order) <= exact * 1.01 + 2 * tau(sigma, summands) + 1e-9


@pytest.mark.parametrize("sigma, summands", [(0.5, 2), (0.5, 6), (0.7, 3), (1.0, 4), (1.2, 9)])
def test_tau_bounds_how_far_a_sum_is_from_a_discrete_gaussian(sigma: float, summands: int) -> None:
    mass = masses(sigma, summands)
    middle, spread = len(mass) // 2, sqrt(summands) * sigma
    near = np.arange(-int(6 * spread), int(6 * spread) + 1)
    one = np.exp(-(np.arange(-40 * middle, 40 * middle + 1, dtype=np.longdouble) ** 2) / (2 * spread**2))
    gauss = np.exp(-(near.astype(np.longdouble) ** 2) / (2 * spread**2)) / one.sum()
    assert float(np.abs(np.log(mass[middle + near] / gauss)).max()) <= tau(sigma, summands)
    assert tau(sigma, 1) == 0.0


@pytest.mark.parametrize("multiplier, rounds", [(0.7, 1), (1.0, 1), (2.0, 10), (5.0, 100), (30.0, 50)])
def test_epsilon_is_that_of_a_gaussian_and_never_below_the_exact_one(multiplier: float, rounds: int) -> None:
    honest, sigma = 4, 500.0
    one = Release(sensitivity=sqrt(honest) * sigma / multiplier, sigma=sigma, honest=honest, values=10**6)
    found = epsilon([(one, rounds)], DELTA)
    accountant = dp_accounting.rdp.RdpAccountant()
    accountant.compose(dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(multiplier), rounds))
    assert found == pytest.approx(accountant.get_epsilon(DELTA), rel=0.02)
    size = sqrt(rounds) / multiplier  # composed Gaussians are one Gaussian (Balle and Wang 2018)
    exact = norm.cdf(size / 2 - found / size) - exp(found) * norm.cdf(-size / 2 - found / size)
    assert exact <= DELTA


def test_histories_compose_and_more_costs_more() -> None:
    one = Release(sensitivity=100.0, sigma=50.0, honest=6, values=1000)
    other = Release(sensitivity=100.0, sigma=90.0, honest=3, values=1000)
    assert epsilon([], DELTA) == epsilon([(one, 0)], DELTA) == 0.0
    assert epsilon([(one, 2), (one, 3)], DELTA) == pytest.approx(epsilon([(one, 5)], DELTA))
    assert epsilon([(one, 5), (other, 1)], DELTA) > epsilon([(one, 5)], DELTA)
    assert epsilon([(one, 5)], 1e-9) > epsilon([(one, 5)], DELTA)
    small = Release(sensitivity=100.0, sigma=0.5, honest=10**5, values=10**6)
    assert epsilon([(small, 1)], DELTA) > 1000.0  # tau counts every value
    for delta in (0.0, 1.0):
        with pytest.raises(PrivacyRefused):
            epsilon([(one, 1)], delta)


def lattice(**other: Any) -> Lattice:
    given: dict[str, Any] = {
        "bits": 32,
        "values": 20_000,
        "clip": 1.0,
        "scale": 1000.0,
        "level": 1000,
        "sites": 10,
    }
    return Lattice(**{**given, **other})


def test_the_fewest_honest_sites_together_have_the_noise_asked_for() -> None:
    """The threshold less the colluding sites: the sum's deviation is the asked one, to 2 %."""
    wanted, honest = 40.0, honest_sites(9, 7, 2)
    assert honest == 5
    space = lattice(sigma=site_sigma(wanted, honest))
    total = sum(draw(space, Keystream(bytes([number]) * 32)) for number in range(honest))
    assert np.std(np.asarray(total)) == pytest.approx(wanted, rel=0.02)
    assert space.sigma * sqrt(honest) >= wanted * (1 - 1e-12)
    one = draw(space)
    assert np.std(one) == pytest.approx(wanted / sqrt(5), rel=0.03) and not np.array_equal(one, draw(space))
    assert not draw(lattice()).any()


def test_noise_that_cannot_be_accounted_for_is_refused() -> None:
    for sigma, honest in ((40.0, 0), (0.0, 3), (float("nan"), 3), (1.0, 5)):
        with pytest.raises(PrivacyRefused):
            site_sigma(sigma, honest)
    with pytest.raises(PrivacyRefused):
        release(lattice(), 3)
    with pytest.raises(PrivacyRefused):
        release(lattice(sigma=5.0), 0)
    with pytest.raises(PrivacyRefused):
        tau(0.49, 3)


def test_sensitivity_counts_the_largest_weight() -> None:
    one = release(lattice(sigma=600.0, most=4), 3)
    assert one == Release(sensitivity=4000.0, sigma=600.0, honest=3, values=20_000)


def test_sigma_is_found_for_an_epsilon() -> None:
    space = lattice()
    sigma = sigma_for(2.0, delta=DELTA, rounds=20, lattice=space, honest=5)
    cost = [
        epsilon([(Release(sensitivity=1000.0, sigma=one, honest=5, values=20_000), 20)], DELTA)
        for one in (sigma, sigma / 1.002)
    ]
    assert cost[0] <= 2.0 < cost[1]
    assert sigma_for(1e9, delta=DELTA, rounds=1, lattice=space, honest=5) < 3.0
    with pytest.raises(PrivacyRefused):
        sigma_for(0.0, delta=DELTA, rounds=1, lattice=space, honest=5)


def test_who_colludes_is_counted_out_and_too_many_are_refused() -> None:
    assert honest_sites(10, 7, 0) == 7 and honest_sites(10, 7, 6) == 1
    assert honest_sites(10, 7, 0, lying=True) == least_together(10, 7, 0) == 6
    assert least_together(10, 7, 3) == 2
    assert least_together(3, 3, 0) == 3
    assert fewest_honest(3, 10, 0) == 3 and fewest_honest(7, 10, 1) == 4
    assert fewest_honest(7, 10, 2, lying=True) == 2
    with pytest.raises(PrivacyRefused):
        fewest_honest(3, 10, 2, lying=True)  # in a plan of four each of the two others knows half
    with pytest.raises(PrivacyRefused):
        honest_sites(10, 7, 7)
    with pytest.raises(PrivacyRefused):
        honest_sites(10, 7, 4, lying=True)
    with pytest.raises(PrivacyRefused):
        least_together(10, least_threshold(10) - 1, 0)


def test_known_values() -> None:
    """One Gaussian release of multiplier 1: rho = 1/2, epsilon from Canonne et al. 2020, proposition 12."""
    one = Release(sensitivity=1000.0, sigma=1000.0, honest=1, values=10)
    best = min(
        0.5 * order + (log(1 / DELTA) + (order - 1) * log(1 - 1 / order) - log(order)) / (order - 1)
        for order in np.linspace(2, 20, 100_000)
    )
    assert epsilon([(one, 1)], DELTA) == pytest.approx(best, rel=1e-4)
