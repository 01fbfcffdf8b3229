"""Epsilon against independent references."""

from __future__ import annotations

import math

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from appliance.core.errors import PrivacyRefused
from appliance.privacy.accountant import Steps, epsilon, merge, noise_for


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Exact epsilon of a mu-Gaussian mechanism (Balle and Wang 2018; Dong, Roth and Su 2019)."""

    def gap(value: float) -> float:
        return (norm.cdf(-value / mu + mu / 2) - math.exp(value) * norm.cdf(-value / mu - mu / 2)) - delta

    return float(brentq(gap, 0, 100))


@pytest.mark.parametrize(("sigma", "steps"), [(4.0, 10), (8.0, 100), (2.0, 1)])
def test_without_sampling_it_is_the_exact_gaussian_mechanism(sigma: float, steps: int) -> None:
    exact = gaussian_epsilon(math.sqrt(steps) / sigma, 1e-5)
    found = epsilon([Steps(noise_multiplier=sigma, sample_rate=1.0, steps=steps)], 1e-5)
    assert exact - 1e-6 <= found <= exact * 1.02 + 0.02


def test_sampling_lies_below_the_rdp_bound_and_above_a_known_lower_bound() -> None:
    from opacus.accountants import RDPAccountant

    history = Steps(noise_multiplier=0.8, sample_rate=0.02, steps=1000)
    rdp = RDPAccountant()
    rdp.history = [(0.8, 0.02, 1000)]
    found = epsilon([history], 1e-5)
    assert 6.3 < found < rdp.get_epsilon(delta=1e-5)


def test_histories_compose_instead_of_adding() -> None:
    part = Steps(noise_multiplier=1.0, sample_rate=0.1, steps=30)
    once, twice = epsilon([part], 1e-5), epsilon([part, part], 1e-5)
    assert once < twice < 2 * once
    assert merge([part, part]) == [Steps(noise_multiplier=1.0, sample_rate=0.1, steps=60)]


def test_noise_for_meets_the_target_tightly_and_counts_what_was_spent() -> None:
    noise = noise_for(3.0, delta=1e-5, sample_rate=0.2, steps=40)
    run = Steps(noise_multiplier=noise, sample_rate=0.2, steps=40)
    assert 2.97 <= epsilon([run], 1e-5) <= 3.0
    before = [Steps(noise_multiplier=2.0, sample_rate=0.2, steps=20)]
    more = noise_for(3.0, delta=1e-5, sample_rate=0.2, steps=40, spent=before)
    assert more > noise
    little = noise_for(8.0, delta=1e-5, sample_rate=0.05, steps=3)
    assert 7.9 <= epsilon([Steps(noise_multiplier=little, sample_rate=0.05, steps=3)], 1e-5) <= 8.0
    with pytest.raises(PrivacyRefused):
        noise_for(1.0, delta=1e-5, sample_rate=0.2, steps=40, spent=[run])
