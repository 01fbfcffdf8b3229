"""Epsilon against independent references: closed forms, integration, Opacus and dp-accounting."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from appliance.core.errors import PrivacyRefused
from appliance.privacy import pld
from appliance.privacy.accountant import Steps, epsilon, merge, noise_for


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Exact epsilon of a mu-Gaussian mechanism (Balle and Wang 2018; Dong, Roth and Su 2019)."""

    def gap(value: float) -> float:
        return (norm.cdf(-value / mu + mu / 2) - math.exp(value) * norm.cdf(-value / mu - mu / 2)) - delta

    return float(brentq(gap, 0, 100))


@pytest.mark.parametrize(("sigma", "steps"), [(4.0, 10), (8.0, 100), (2.0, 1), (0.5, 2)])
def test_without_sampling_it_is_the_exact_gaussian_mechanism(sigma: float, steps: int) -> None:
    exact = gaussian_epsilon(math.sqrt(steps) / sigma, 1e-5)
    found = epsilon([Steps(noise_multiplier=sigma, sample_rate=1.0, steps=steps)], 1e-5)
    assert exact - 1e-9 <= found <= exact * 1.001


SAMPLED = [
    (1.637, 0.35, 55, 6.2e-5),
    (0.8, 0.02, 1000, 1e-5),
    (0.554, 0.032, 93, 1e-4),
    (10.0, 0.3, 50, 1e-5),
    (1.0, 1e-3, 10_000, 1e-7),
    (1.5, 0.05, 3, 1e-10),
]


@pytest.mark.parametrize(("sigma", "rate", "steps", "delta"), SAMPLED)
def test_it_agrees_with_the_accountants_of_opacus(
    sigma: float, rate: float, steps: int, delta: float
) -> None:
    from opacus.accountants import PRVAccountant, RDPAccountant

    prv, rdp = PRVAccountant(), RDPAccountant()
    prv.history = rdp.history = [(sigma, rate, steps)]
    with np.errstate(all="ignore"):
        upper = prv.get_epsilon(delta=delta)  # its error bound of 0.01 included
    found = epsilon([Steps(noise_multiplier=sigma, sample_rate=rate, steps=steps)], delta)
    assert upper - 0.0201 <= found <= upper
    assert found < rdp.get_epsilon(delta=delta)


@pytest.mark.parametrize("draws", [1, 5])
@pytest.mark.parametrize(("sigma", "rate", "steps", "delta"), [SAMPLED[0], SAMPLED[3]])
def test_it_agrees_with_dp_accounting_also_for_units_with_several_draws(
    sigma: float, rate: float, steps: int, delta: float, draws: int
) -> None:
    from dp_accounting.pld import privacy_loss_distribution as reference

    theirs = reference.from_mixture_gaussian_mechanism(
        standard_deviation=sigma,
        sensitivities=list(range(draws + 1)),
        sampling_probs=list(pld.entries(rate, draws)),
        value_discretization_interval=1e-3,
    ).self_compose(steps)
    ours = max(
        pld.epsilon([(pld.Pair(sigma, pld.entries(rate, draws), adding), steps)], delta)
        for adding in (False, True)
    )
    assert ours == pytest.approx(theirs.get_epsilon_for_delta(delta), rel=1e-3)


@pytest.mark.parametrize("adding", [False, True])
def test_a_step_on_the_grid_dominates_the_true_one(adding: bool) -> None:
    """Hockey-stick divergence at many epsilons: never below the exact one, hardly above."""
    sigma, rate, grid = 0.9, 0.2, 0.002
    losses = pld.discretise(pld.Pair(sigma, pld.entries(rate), adding), grid)
    values = (losses.first + np.arange(len(losses.mass))) * grid
    for level in np.linspace(-0.15, 4, 40):
        found = losses.infinite + float(losses.mass @ (1 - np.exp(level - values)).clip(min=0))
        exact = stick(sigma, rate, float(level), adding=adding)
        assert exact - 1e-9 <= found <= exact + 2e-5


def stick(sigma: float, rate: float, level: float, *, adding: bool) -> float:
    """max over events E of P(E) - e^level Q(E), by integration."""
    x = np.linspace(-12, 13, 400_001)
    none = norm.pdf(x, 0, sigma)
    unit = (1 - rate) * none + rate * norm.pdf(x, 1, sigma)
    left, right = (none, unit) if adding else (unit, none)
    return float(np.trapezoid((left - math.exp(level) * right).clip(min=0), x))


def test_different_settings_compose_as_dp_accounting_composes_them() -> None:
    from dp_accounting.pld import privacy_loss_distribution as reference

    history = [
        Steps(noise_multiplier=1.6, sample_rate=0.3, steps=20),
        Steps(noise_multiplier=0.9, sample_rate=0.01, steps=300),
        Steps(noise_multiplier=5.0, sample_rate=1.0, steps=2),
    ]
    theirs = None
    for part in history:
        one = reference.from_gaussian_mechanism(
            standard_deviation=part.noise_multiplier,
            sampling_prob=part.sample_rate,
            value_discretization_interval=1e-3,
        ).self_compose(part.steps)
        theirs = one if theirs is None else theirs.compose(one)
    assert theirs is not None
    assert epsilon(history, 1e-6) == pytest.approx(theirs.get_epsilon_for_delta(1e-6), rel=1e-3)


def test_histories_compose_instead_of_adding() -> None:
    part = Steps(noise_multiplier=1.0, sample_rate=0.1, steps=30)
    once, twice = epsilon([part], 1e-5), epsilon([part, part], 1e-5)
    assert once < twice < 2 * once
    assert merge([part, part]) == [Steps(noise_multiplier=1.0, sample_rate=0.1, steps=60)]


def test_noise_for_meets_the_target_tightly_and_counts_what_was_spent() -> None:
    run = Steps(noise_multiplier=0.0, sample_rate=0.2, steps=40)
    noise = noise_for(3.0, delta=1e-5, run=run)
    done = replace(run, noise_multiplier=noise)
    assert 2.97 <= epsilon([done], 1e-5) <= 3.0
    before = [Steps(noise_multiplier=2.0, sample_rate=0.2, steps=20)]
    assert noise_for(3.0, delta=1e-5, run=run, spent=before) > noise
    assert noise_for(3.0, delta=1e-5, run=replace(run, draws=4)) > 2 * noise
    few = Steps(noise_multiplier=0.0, sample_rate=0.05, steps=3)
    little = noise_for(8.0, delta=1e-5, run=few)
    assert 7.9 <= epsilon([replace(few, noise_multiplier=little)], 1e-5) <= 8.0
    with pytest.raises(PrivacyRefused):
        noise_for(1.0, delta=1e-5, run=run, spent=[done])


def test_sampling_records_costs_a_patient_of_many_records_more() -> None:
    """The patient-level epsilon of a run that calls itself "record level, epsilon 8" (private-training)."""
    once = Steps(noise_multiplier=0.64, sample_rate=256 / 10_000, steps=200)
    assert epsilon([once], 5e-6) == pytest.approx(8, abs=0.3)
    assert epsilon([replace(once, draws=5)], 5e-6) == pytest.approx(44, abs=2)


def test_settings_without_privacy_cost_a_great_deal_and_do_not_crash() -> None:
    assert epsilon([Steps(noise_multiplier=0.0, sample_rate=0.1, steps=1)], 1e-5) == math.inf
    assert epsilon([Steps(noise_multiplier=0.02, sample_rate=1.0, steps=3)], 1e-5) == math.inf
    assert epsilon([Steps(noise_multiplier=0.3, sample_rate=0.35, steps=55, draws=10)], 1e-4) > 1000
    run = Steps(noise_multiplier=0.0, sample_rate=0.35, steps=2, draws=10)
    noise = noise_for(8.0, delta=1e-4, run=run)
    assert 7.9 < epsilon([replace(run, noise_multiplier=noise)], 1e-4) <= 8.0
