"""Tests A, B and C: is the mechanism that a run used the one its claim was counted for?

A reads the run's own record and measures what the product's code does now; B and C run that code on
canaries (privacy_audit_canaries.py) with the run's noise, rate, clip bound and steps. An alarm of B
or C counts when a second run with fresh coins confirms it: one honest run in twenty passes a 95 %
limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import isfinite, sqrt
from typing import Any

from appliance.models.registry import Model
from appliance.privacy import accountant
from appliance.privacy.attacks import gaussian, mechanism, onerun
from appliance.privacy.attacks.verdict import FAIL, NONE, OPEN, PASS, Finding
from appliance.train.plan import Plan
from appliance.train.settings import Settings, settings_from

CANARIES = 2000
_LEAST, _WORK = 200, 2e9  # canaries at least; multiplications that a run on them may take
_DELTAS = (1.0, 1e2, 1e4)  # the claimed delta over these
_NOISE = 2**20  # coordinates of live noise: its size is known to 0.23 %
_CLIPPED = 4096
_RECORD, _LIVE = "training record", "update code"


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """What a private run says of itself. `steps` were released, at `delta` they cost `epsilon`."""

    plan: Plan
    settings: Settings
    history: Sequence[Mapping[str, Any]]
    trained: int | None
    epsilon: float
    stated: float
    delta: float
    charged: int

    @property
    def candidates(self) -> int:
        """How many units or records could be sampled."""
        return round((self.plan.expected_batch or 0.0) / (self.plan.sample_rate or 1.0))


def claim_of(model: Model) -> Claimed | None:
    """The claim of a trained model, None for one without; `epsilon` is counted anew for its steps."""
    training, privacy = model.facts.get("training") or {}, model.facts.get("privacy")
    if not privacy or not training.get("plan"):
        return None
    known = {field.name for field in fields(Plan)}
    plan = Plan(**{name: value for name, value in training["plan"].items() if name in known})
    history = training.get("history") or []
    steps = int(privacy.get("steps_released") or len(history) or plan.steps)
    plan = replace(plan, steps=steps)
    delta = float(privacy["delta"])
    return Claimed(
        plan=plan,
        settings=settings_from(training["settings"]),
        history=history,
        trained=training.get("trained"),
        epsilon=accountant.epsilon([plan.charged(steps)], delta),
        stated=float(privacy["epsilon"]),
        delta=delta,
        charged=int(privacy.get("steps_charged") or steps),
    )


def not_private(name: str) -> list[Finding]:
    """A, B and C of a model that was trained without privacy: there is nothing to test."""
    why = "It was trained without privacy: there is no noise and no claim that could be tested."
    return [
        Finding(test=test, name="mechanism", on=name, verdict=NONE, found=why, ceiling="nothing")
        for test in "ABC"
    ]


def check_mechanism(
    claim: Claimed, canaries: int = CANARIES, told: Callable[[float], None] = lambda share: None
) -> list[Finding]:
    """All of A, B and C; `told` hears how far it is, from 0 to 1."""
    from appliance.ops.privacy_audit_canaries import run_canaries

    count = _fitting(canaries, claim.plan)
    sharp = sharpest_delta(claim, count)
    runs = [run_canaries(claim.plan, claim.settings, count, lambda step: told(0.5 * step / claim.plan.steps))]
    tested = canary_findings(runs[0], claim, sharp)
    if any(finding.verdict == FAIL for finding in tested):
        runs.append(run_canaries(claim.plan, claim.settings, count))
        tested = _confirmed(tested, canary_findings(runs[1], claim, sharp))
    told(0.8)
    live = _live_findings(claim)
    told(1.0)
    return [*record_findings(claim), *live, *(_batches(claim, run) for run in runs), *tested]


def record_findings(claim: Claimed) -> list[Finding]:
    """What the run wrote down about itself, step by step."""
    return [_recorded_noise(claim), _recorded_batches(claim), _stated_epsilon(claim)]


def _recorded_noise(claim: Claimed) -> Finding:
    ratios = [step.get("noise_ratio") for step in claim.history]
    there = [float(ratio) for ratio in ratios if ratio is not None]
    if not there or len(there) < len(ratios) or not claim.trained:
        why = "The record does not say how large the noise of every step was: the model is from a version"
        return _a("noise size", _RECORD, OPEN, f"{why} that did not measure it.", "nothing")
    seen = mechanism.check_noise(there, claim.trained)
    return _a(
        "noise size",
        _RECORD,
        PASS if seen.right else FAIL,
        f"In {len(there)} steps the noise was {seen.worst:.4f} times as large as promised"
        f" ({seen.wrong} steps outside what chance allows).",
        f"noise off by more than {seen.high - 1:.2%} over the run, as the run itself measured it",
        ratio=seen.worst,
        interval=[seen.low, seen.high],
        wrong=seen.wrong,
    )


def _recorded_batches(claim: Claimed) -> Finding:
    sizes = [int(step["units"]) for step in claim.history if step.get("units") is not None]
    if not sizes:
        return _a("batch sizes", _RECORD, OPEN, "The record holds no batch sizes.", "nothing")
    return _judged_batches(claim, sizes, claim.candidates, _RECORD)


def _batches(claim: Claimed, run: Any) -> Finding:
    return _judged_batches(claim, run.batches, run.entered, _LIVE)


def _judged_batches(claim: Claimed, sizes: Sequence[int], candidates: int, on: str) -> Finding:
    rate = claim.plan.sample_rate or 0.0
    seen = mechanism.check_batches(sizes, candidates, rate)
    width = (seen.high - seen.low) / 2 / max(1e-9, candidates * rate)
    return _a(
        "batch sizes",
        on,
        PASS if seen.right else FAIL,
        f"{len(sizes)} batches of {seen.worst:,.1f} on average; Poisson sampling at rate {rate:g} of"
        f" {candidates:,} gives {seen.low:,.1f} to {seen.high:,.1f}.",
        f"a sampling rate off by more than {width:.1%}, and batches that are not drawn at random",
        mean=seen.worst,
        interval=[seen.low, seen.high],
        wrong=seen.wrong,
    )


def _stated_epsilon(claim: Claimed) -> Finding:
    plan, taken = claim.plan, max(len(claim.history), claim.plan.steps)
    counted = accountant.epsilon([plan.charged(claim.charged)], claim.delta)
    right = claim.charged >= taken and claim.stated >= counted * (1 - 1e-3)
    return _a(
        "epsilon counted anew",
        _RECORD,
        PASS if right else FAIL,
        f"{claim.charged} steps were charged and {taken} taken; they cost epsilon {counted:.3f},"
        f" {claim.stated:.3f} is stated.",
        "a claim below what noise, rate and steps of the record cost",
        counted=counted,
        stated=claim.stated,
    )


def _live_findings(claim: Claimed) -> list[Finding]:
    from appliance.ops.privacy_audit_canaries import clipped_norms, pure_noise

    sigma = claim.plan.noise_multiplier or 0.0
    first, second = pure_noise(claim.plan, claim.settings, _NOISE, 2)
    (again,) = pure_noise(claim.plan, claim.settings, _NOISE, 1)
    size = mechanism.check_noise(
        [sqrt(float(noise @ noise) / _NOISE) / sigma for noise in (first, second, again)], _NOISE
    )
    half = _NOISE // 2
    fresh = mechanism.check_independent(
        [(first, second), (first, again), (second, again), (first[:half], first[half:])]
    )
    norms = mechanism.check_norms(clipped_norms(claim.plan, claim.settings, _CLIPPED))
    return [
        _a(
            "noise size",
            _LIVE,
            PASS if size.right else FAIL,
            f"Three steps without any unit: the noise is {size.worst:.4f} times as large as promised.",
            f"noise off by more than {size.high - 1:.2%}",
            ratio=size.worst,
            interval=[size.low, size.high],
        ),
        _a(
            "noise fresh",
            _LIVE,
            PASS if fresh.right else FAIL,
            f"Noise of two steps, of two starts and of two halves: largest correlation {fresh.worst:+.4f}.",
            f"correlations above {fresh.high:.4f}: noise that is repeated, replayed or shared",
            correlation=fresh.worst,
            limit=fresh.high,
        ),
        _a(
            "clip bound",
            _LIVE,
            PASS if norms.right else FAIL,
            f"Units with gradients of up to a million bounds add {norms.worst:.6f} bounds at most.",
            "a sum to which one of these units adds more than the bound and 0.001 %",
            norm=norms.worst,
        ),
    ]


def canary_findings(run: Any, claim: Claimed, sharp: tuple[float, float, float]) -> list[Finding]:
    """B, at `sharp` (see `sharpest_delta`), and C of one run on canaries."""
    return [_one_run(run, sharp, claim), _gaussian(run, claim)]


def sharpest_delta(claim: Claimed, canaries: int) -> tuple[float, float, float]:
    """Where test B can show most: delta, the epsilon that is claimed there, and B's ceiling.

    Noise, rate and steps promise an epsilon at every delta; at a delta as large as 1 / (10 units) the
    bound's own delta term leaves little to see. Chosen before any coin is tossed.
    """
    tried = []
    for delta in (claim.delta / scale for scale in _DELTAS):
        promised = accountant.epsilon([claim.plan.charged(claim.plan.steps)], delta)
        tried.append((onerun.ceiling(canaries, delta=delta) / max(promised, 1e-9), delta, promised))
    _, delta, promised = max(tried)
    return delta, promised, onerun.ceiling(canaries, delta=delta)


def _one_run(run: Any, sharp: tuple[float, float, float], claim: Claimed) -> Finding:
    delta, promised, most = sharp
    seen = onerun.bound(run.scores, run.inside, delta=delta)
    weak = most <= promised
    return Finding(
        test="B",
        name="one-run bound",
        on=_LIVE,
        verdict=FAIL if seen.epsilon > promised else OPEN if weak else PASS,
        found=f"{seen.right} of {seen.guesses} guesses right: at delta {delta:.2g} epsilon is at least"
        f" {seen.epsilon:.2f} (95 %), {promised:.2f} is claimed there (and {claim.epsilon:.2f} at"
        f" {claim.delta:.2g}).",
        ceiling=f"epsilon {most:.2f} at that delta, with every guess right"
        + (": too little to refute this claim" if weak else ""),
        figures={
            "bound": seen.epsilon,
            "ceiling": most,
            "claim": promised,
            "delta": delta,
            "canaries": seen.canaries,
            "guesses": seen.guesses,
            "right": seen.right,
        },
    )


def _gaussian(run: Any, claim: Claimed) -> Finding:
    seen = gaussian.separation(run.scores, run.inside)
    least = gaussian.epsilon_of(seen.low, claim.delta)
    plan, count = claim.plan, len(run.scores)
    honest = (plan.sample_rate or 0.0) * plan.draws * sqrt(plan.steps) / (plan.noise_multiplier or 1.0)
    factor = gaussian.seen_from(honest, count, claim.epsilon, claim.delta)
    return Finding(
        test="C",
        name="Gaussian estimate",
        on=_LIVE,
        verdict=FAIL if least > claim.epsilon else PASS if isfinite(factor) else OPEN,
        found=_apart(seen)
        + f" about epsilon {least:.2f}, {claim.epsilon:.2f} is claimed. An estimate that takes scores as"
        " normal, no proof.",
        ceiling=f"noise too small, or a bound too large, by a factor of about {factor:.2f}",
        figures={
            "mu": seen.mu if isfinite(seen.mu) else None,
            "low": seen.low if isfinite(seen.low) else None,
            "epsilon": least if isfinite(least) else None,
            "claim": claim.epsilon,
            "seen_from": factor if isfinite(factor) else None,
            "canaries": count,
        },
    )


def _apart(seen: gaussian.Separation) -> str:
    if not isfinite(seen.mu):
        return "Canaries that are out show no noise at all:"
    return f"In and out are {seen.mu:.2f} deviations apart, {seen.low:.2f} at least (95 %):"


def _confirmed(first: Sequence[Finding], second: Sequence[Finding]) -> list[Finding]:
    """An alarm stands when it sounded twice; one that did not is left open."""
    told = []
    for one, two in zip(first, second, strict=True):
        if one.verdict != FAIL:
            told.append(one)
        elif two.verdict == FAIL:
            told.append(replace(one, found=f"{one.found} A second run with fresh coins says so too."))
        else:
            told.append(
                replace(one, verdict=OPEN, found=f"{one.found} A second run did not: audit it again.")
            )
    return told


def _fitting(asked: int, plan: Plan) -> int:
    """As many canaries as were asked for, or as can be computed in about a minute."""
    rate = max(1e-3, plan.steps * (plan.sample_rate or 1.0) * plan.draws)
    return max(_LEAST, min(asked, int(sqrt(2 * _WORK / rate))))


def _a(name: str, on: str, verdict: str, found: str, ceiling: str, **figures: Any) -> Finding:
    return Finding(test="A", name=name, on=on, verdict=verdict, found=found, ceiling=ceiling, figures=figures)
