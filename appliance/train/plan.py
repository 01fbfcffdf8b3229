"""The plan of a run, worked out and shown before it starts: sizes, noise, cost, who is protected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, cos, pi, sqrt
from typing import Any

from appliance.core.errors import ConfigWrong, PrivacyRefused
from appliance.privacy.accountant import ACCOUNTANT, Steps, epsilon, noise_for
from appliance.privacy.ledger import EPSILON_LIMIT, FEWEST_UNITS, Budget, delta_for
from appliance.train.settings import Settings

PRIVATE_STEPS = 55
_LEAST_EPSILON = 0.25  # a run on less is nearly all noise at any size this product trains
_LEAST_NOISE = 0.3  # as in accountant.noise_for: less is never chosen
_PRIVATE_RATES = {"lora": 0.2, "prompt": 0.1}  # what starts at zero or at random may move far in a step
_OPEN_RATES = {"lora": 5e-3, "prompt": 5e-2}
_WEIGHTS_RATE = 1e-3  # what was trained before: the base's own weights
_OPEN_WEIGHTS_RATE = 1e-4
_UNTOUCHED_DECAY = 0.3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Fixed at the start, kept for resume. Private fields are None for a run without privacy.

    `units` is the declared number of units: a public constant from here on, as is `candidates`, the
    number of units or records that can be sampled; `made_up` of them are planted secrets. `expected_batch`
    is sample_rate x candidates, the divisor of every update, whatever was really sampled. `draws` is how
    often a unit can enter a step. `schedule` and `warmup_steps` shape the learning rate: `learning_rates`.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    units: int
    records: int
    unit: str | None = None
    sample_rate: float | None = None
    sampling: str | None = None
    draws: int = 1
    expected_batch: float | None = None
    noise_multiplier: float | None = None
    epsilon_before: float | None = None
    epsilon_after: float | None = None
    delta: float | None = None
    accountant: str | None = None
    schedule: str = "linear"
    warmup_steps: int = 5
    made_up: int = 0

    @property
    def noise_on_mean(self) -> float | None:
        """Standard deviation of the noise on the mean clipped gradient, in units of max_grad_norm."""
        if self.noise_multiplier is None or self.expected_batch is None:
            return None
        return self.noise_multiplier / self.expected_batch

    def charged(self, steps: int) -> Steps:
        """What `steps` steps of this run cost."""
        return Steps(
            noise_multiplier=self.noise_multiplier or 0.0,
            sample_rate=self.sample_rate or 0.0,
            steps=steps,
            draws=self.draws,
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def plan_private(
    settings: Settings,
    *,
    units: int,
    candidates: int,
    records: int,
    unit: str,
    budget: Budget,
    made_up: int = 0,
) -> Plan:
    """Choose the noise so that the dataset's whole history stays within the epsilon asked.

    Raises:
        PrivacyRefused: too few units, steps with less than one of them, delta not below 1 / units, or a
        budget that cannot pay for any run.
    """
    if units - made_up < FEWEST_UNITS:
        raise PrivacyRefused(
            f"{units - made_up} {unit}s are too few to train under differential privacy"
            f" (at least {FEWEST_UNITS}).",
            "Collect more records, or join federated rounds with other sites.",
        )
    expected = settings.sample_rate * candidates
    if expected < 1:
        raise PrivacyRefused(
            f"A step would take {expected:.2g} {unit if settings.sampling == 'unit' else 'record'}s of"
            f" {candidates:,}: fewer than one.",
            f"Use --sample-rate {max(0.35, 1 / candidates):.2g}; big steps are what drowns the noise.",
        )
    if not 0 < budget.delta < 1 / units:
        raise PrivacyRefused(
            f"Delta {budget.delta:g} is not below 1/{units}: one {unit} could be published whole.",
            f"Use --delta {delta_for(units):.2g}.",
        )
    target, before = settings.epsilon or budget.epsilon_limit, budget.spent()
    if target > budget.epsilon_limit:
        raise PrivacyRefused(
            f"Epsilon {target:g} is more than the limit of {budget.dataset}, {budget.epsilon_limit:g}.",
            "Ask for less, or let the site raise the limit with `cloister budget set`.",
        )
    if target - before < _LEAST_EPSILON:
        raise PrivacyRefused(
            f"{budget.dataset} has spent epsilon {before:.2f} of {target:g}: too little is left.",
            "Let the site raise the limit with `cloister budget set`."
            if target == budget.epsilon_limit
            else f"Ask for more with --epsilon (the dataset's limit is {budget.epsilon_limit:g}).",
        )
    steps = settings.steps or PRIVATE_STEPS
    draws = settings.records_per_unit if settings.sampling == "record" else 1
    run = Steps(noise_multiplier=0.0, sample_rate=settings.sample_rate, steps=steps, draws=draws)
    noise = noise_for(target, delta=budget.delta, run=run, spent=budget.history)
    return Plan(
        steps=steps,
        learning_rate=settings.learning_rate or usual_rate(settings),
        weight_decay=_decay(settings),
        units=units,
        records=records,
        unit=unit,
        sample_rate=settings.sample_rate,
        sampling=settings.sampling,
        draws=draws,
        expected_batch=expected,
        noise_multiplier=noise,
        epsilon_before=before,
        epsilon_after=epsilon([*budget.history, replace(run, noise_multiplier=noise)], budget.delta),
        delta=budget.delta,
        accountant=ACCOUNTANT,
        schedule=settings.schedule,
        warmup_steps=settings.warmup_steps,
        made_up=made_up,
    )


def unspent(settings: Settings, *, dataset: str, unit: str, units: int) -> Budget:
    """The budget that public records would have if they were private, to plan a run like a private one."""
    limit = settings.epsilon or EPSILON_LIMIT
    return Budget(dataset=dataset, unit=unit, epsilon_limit=limit, delta=settings.delta or delta_for(units))


def trial_plan(whole: Plan, settings: Settings, steps: int) -> Plan:
    """One trial's part of a search that was planned and is charged as the one run `whole`."""
    return replace(
        whole,
        steps=steps,
        learning_rate=settings.learning_rate or usual_rate(settings),
        weight_decay=_decay(settings),
        schedule=settings.schedule,
        warmup_steps=settings.warmup_steps,
    )


def usual_rate(settings: Settings) -> float:
    """The peak learning rate where none is asked for."""
    if settings.private:
        return _PRIVATE_RATES.get(settings.method, _WEIGHTS_RATE)
    return _OPEN_RATES.get(settings.method, _OPEN_WEIGHTS_RATE)


def _decay(settings: Settings) -> float:
    """A private LoRA starts at zero and may be pulled there; the base's own weights may not."""
    if settings.weight_decay is not None:
        return settings.weight_decay
    return _UNTOUCHED_DECAY if settings.private and settings.method == "lora" else 0.0


def plan_open(settings: Settings, *, units: int, records: int) -> Plan:
    """A run without privacy: `epochs` passes in batches of `batch` records.

    Raises:
        ConfigWrong: there is no record to train on.
    """
    if records < 1:
        raise ConfigWrong("There are no training records.", "Import records into this dataset.")
    steps = settings.steps or max(1, round(settings.epochs * records / min(settings.batch, records)))
    return Plan(
        steps=steps,
        learning_rate=settings.learning_rate or usual_rate(settings),
        weight_decay=_decay(settings),
        units=units,
        records=records,
        schedule=settings.schedule,
        warmup_steps=settings.warmup_steps,
    )


def warnings(plan: Plan, settings: Settings, *, trained: int, budget: Budget | None = None) -> list[str]:
    """What will go badly with this plan, in sentences; `trained` is the number of trained parameters.

    The noise on a step's sum is a vector of length noise_multiplier x sqrt(trained) clip bounds, and the
    sum of `expected_batch` clipped gradients is at most `expected_batch` long. Where the noise is longer,
    a step is mostly noise, and only what many steps and many records agree on comes through.
    """
    if plan.noise_multiplier is None or plan.expected_batch is None:
        if plan.records < settings.batch:
            return [f"There are only {plan.records:,} records: every step takes all, not {settings.batch}."]
        return []
    ratio = noise_ratio(plan, trained) or 0.0
    if ratio <= 1:
        return []
    real = plan.units - plan.made_up
    told = [
        f"The noise of a step is {ratio:.1f} times as long as the longest gradient there can be: this run"
        f" may learn little. It needs about {_rounded(real * ratio):,} {plan.unit}s instead of"
        f" {real:,}{_instead(plan, trained, budget)}."
    ]
    if settings.method == "lora" and settings.rank <= Settings().rank:
        return told
    return [*told, "Fewer trained parameters help as well: --method lora with a small --rank."]


def noise_ratio(plan: Plan, trained: int) -> float | None:
    """Length of a step's noise against the longest sum of gradients there can be; None without noise."""
    mean = plan.noise_on_mean
    return None if mean is None else mean * sqrt(trained)


def _instead(plan: Plan, trained: int, budget: Budget | None) -> str:
    """The epsilon with which the noise would be as long as the gradient, where there is one."""
    least = (plan.expected_batch or 0.0) / sqrt(trained)
    if budget is None or least < _LEAST_NOISE:
        return ""
    run = replace(plan.charged(plan.steps), noise_multiplier=least)
    needed = epsilon([*budget.history, run], budget.delta)
    return f", or epsilon {needed:.2g}" if needed <= budget.epsilon_limit else ""


def _rounded(count: float) -> int:
    """Up to two digits: an estimate should not look exact."""
    scale = max(1, round(10.0 ** (len(str(int(count))) - 2)))
    return ceil(count / scale) * scale


def learning_rates(steps: int, peak: float, schedule: str = "linear", warmup: int = 5) -> Sequence[float]:
    """One rate a step: `warmup` rising ones, then linear or cosine decay to a tenth of `peak`, or `peak`.

    The cosine is half a period (Loshchilov and Hutter 2017).
    """
    warm = min(warmup, steps)
    rest = max(1, steps - warm)
    falls: dict[str, Callable[[float], float]] = {
        "linear": lambda share: 1 - 0.9 * share,
        "cosine": lambda share: 0.55 + 0.45 * cos(pi * share),
        "constant": lambda share: 1.0,
    }
    fall = falls[schedule]
    rising = [peak * (step + 1) / warm for step in range(warm)]
    return rising + [peak * fall((step + 1) / rest) for step in range(steps - warm)]
