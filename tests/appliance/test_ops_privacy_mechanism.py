"""Tests A, B and C on the product's update code, as it is and broken: which test catches which fault."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from appliance.ops.privacy_audit_mechanism import Claimed, check_mechanism, sharpest_delta
from appliance.privacy import accountant, noise
from appliance.privacy.attacks import onerun
from appliance.privacy.attacks.verdict import FAIL, OPEN, PASS
from appliance.train import clip, loop
from appliance.train.plan import Plan
from appliance.train.settings import Settings


class Repeated:
    """In place of `os`: random bytes that are the same in every run of these tests."""

    def __init__(self) -> None:
        self.urandom = np.random.default_rng(23).bytes


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    """An audit calls an honest run wrong now and then; these tests are to say the same every time."""
    same = Repeated()
    with pytest.MonkeyPatch.context() as patch:
        for module in (noise, loop):
            patch.setattr(module, "os", same)
        yield


def claimed(sigma: float = 4.0, rate: float = 0.35, steps: int = 40, units: int = 1000) -> Claimed:
    """A run whose own record is in order: whatever is found lies in the code."""
    plan = Plan(
        steps=steps,
        learning_rate=0.1,
        weight_decay=0.0,
        units=units,
        records=units,
        unit="patient",
        sample_rate=rate,
        sampling="unit",
        expected_batch=rate * units,
        noise_multiplier=sigma,
        delta=1e-4,
    )
    random = np.random.default_rng(1)
    epsilon = accountant.epsilon([plan.charged(steps)], 1e-4)
    return Claimed(
        plan=plan,
        settings=Settings(max_grad_norm=0.2),
        history=[
            {"units": int(count), "noise_ratio": float(math.sqrt(ratio / 20_000))}
            for count, ratio in zip(
                random.binomial(units, rate, steps), random.chisquare(20_000, steps), strict=True
            )
        ],
        trained=20_000,
        epsilon=epsilon,
        stated=epsilon,
        delta=1e-4,
        charged=steps,
    )


def test_an_honest_mechanism_passes() -> None:
    findings = check_mechanism(claimed(), 1000)
    assert {one.verdict for one in findings} == {PASS}
    assert {one.test for one in findings} == {"A", "B", "C"}


REAL_NOISE, REAL_CLIP = noise.discrete_gaussian, clip.clip_to_lattice


def scaled_noise(scale: float) -> Callable[..., object]:
    return lambda count, sigma, stream: REAL_NOISE(count, sigma * scale, stream)


def loose_clip(gradients: object, bound: float) -> object:
    summed, cut = REAL_CLIP(gradients, 5 * bound)  # type: ignore[arg-type]
    return summed * 5, cut


class Replayed(noise.Keystream):
    """A key that was kept: every start draws the same noise."""

    def __init__(self, key: bytes | None = None) -> None:
        super().__init__(key or bytes(32))


# Which test catches which fault, at sigma 4, rate 0.35, 40 steps, 1000 canaries.
CAUGHT = [
    ("discrete_gaussian", scaled_noise(0.1), {"A", "B", "C"}),
    ("discrete_gaussian", scaled_noise(0.5), {"A", "C"}),
    ("discrete_gaussian", lambda count, sigma, stream: np.zeros(count, np.int64), {"A", "B", "C"}),
    ("clip_to_lattice", loose_clip, {"A", "B", "C"}),
    ("poisson_units", lambda units, rate, stream: np.arange(units), {"A", "B", "C"}),
    ("Keystream", Replayed, {"A"}),
]
NAMES = ["noise / 10", "noise / 2", "no noise", "clip x 5", "everybody sampled", "noise replayed"]


@pytest.mark.parametrize(("name", "broken", "tests"), CAUGHT, ids=NAMES)
def test_a_broken_mechanism_is_caught(
    name: str, broken: object, tests: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise if hasattr(noise, name) else loop, name, broken)
    findings = check_mechanism(claimed(), 1000)
    assert {one.test for one in findings if one.verdict == FAIL} == tests


def test_the_bound_is_taken_where_it_can_show_most() -> None:
    claim = replace(claimed(), delta=1e-3)  # of a hundred units: at it the bound could see next to nothing
    claim = replace(claim, epsilon=accountant.epsilon([claim.plan.charged(claim.plan.steps)], 1e-3))
    assert onerun.ceiling(1000, delta=1e-3) < 2
    delta, promised, most = sharpest_delta(claim, 1000)
    assert delta < claim.delta and promised > claim.epsilon
    assert most / promised > onerun.ceiling(1000, delta=claim.delta) / claim.epsilon
    run = claim.plan.charged(claim.plan.steps)
    assert promised == accountant.epsilon([run], delta)


def test_a_claim_above_the_ceiling_leaves_the_bound_open() -> None:
    findings = check_mechanism(claimed(sigma=1.0), 400)
    (bound,) = [one for one in findings if one.test == "B"]
    assert bound.verdict == OPEN and "too little to refute" in bound.ceiling


def test_records_drawn_twice_are_audited_as_they_are_counted() -> None:
    plain = claimed()
    twice = check_mechanism(replace(plain, plan=replace(plain.plan, draws=2)), 400)
    single = check_mechanism(plain, 400)
    seen = [next(one.figures["mu"] for one in part if one.test == "C") for part in (twice, single)]
    assert seen[0] > 1.5 * seen[1]
