"""The plan of a run, worked out and shown before it starts: sizes, noise, cost, who is protected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from appliance.core.errors import PrivacyRefused
from appliance.privacy.accountant import ACCOUNTANT, Steps, epsilon, noise_for
from appliance.privacy.ledger import Budget
from appliance.train.settings import Settings

PRIVATE_STEPS = 55
_FEWEST_UNITS = 100
_LEAST_EPSILON = 0.25  # a run on less is nearly all noise at any size this product trains


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Fixed at the start, kept for resume. Private fields are None for a run without privacy.

    `units` is the declared number of units: a public constant from here on, as is `candidates`, the
    number of units or records that can be sampled. `expected_batch` is sample_rate x candidates, the
    divisor of every update, whatever was really sampled. `draws` is how often a unit can enter a step.
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
    settings: Settings, *, units: int, candidates: int, records: int, unit: str, budget: Budget
) -> Plan:
    """Choose the noise so that the dataset's whole history stays within the epsilon asked.

    Raises:
        PrivacyRefused: too few units, or the budget cannot pay for any run.
    """
    if units < _FEWEST_UNITS:
        raise PrivacyRefused(
            f"{units} {unit}s are too few to train under differential privacy (at least {_FEWEST_UNITS}).",
            "Collect more records, or join federated rounds with other sites.",
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
        learning_rate=settings.learning_rate or 0.2,
        weight_decay=0.3 if settings.weight_decay is None else settings.weight_decay,
        units=units,
        records=records,
        unit=unit,
        sample_rate=settings.sample_rate,
        sampling=settings.sampling,
        draws=draws,
        expected_batch=settings.sample_rate * candidates,
        noise_multiplier=noise,
        epsilon_before=before,
        epsilon_after=epsilon([*budget.history, replace(run, noise_multiplier=noise)], budget.delta),
        delta=budget.delta,
        accountant=ACCOUNTANT,
    )


def plan_open(settings: Settings, *, units: int, records: int) -> Plan:
    """A run without privacy: `epochs` passes in batches of `batch` records."""
    steps = settings.steps or max(1, round(settings.epochs * records / settings.batch))
    return Plan(
        steps=steps,
        learning_rate=settings.learning_rate or 5e-3,
        weight_decay=settings.weight_decay or 0.0,
        units=units,
        records=records,
    )


def statement(plan: Plan, settings: Settings) -> dict[str, Any]:
    """The exact privacy claim of a finished run, for cards and reports."""
    return {
        "unit": plan.unit,
        "adjacency": f"add or remove one {plan.unit} with all of its records",
        "sampling": f"Poisson over {plan.unit}s, rate {plan.sample_rate:g}"
        if plan.sampling == "unit"
        else f"Poisson over records, rate {plan.sample_rate:g}, at most {plan.draws} of a {plan.unit}",
        "mechanism": f"discrete Gaussian on the sum of clipped {plan.sampling} gradients, CSPRNG noise",
        "noise_multiplier": plan.noise_multiplier,
        "max_grad_norm": settings.max_grad_norm,
        "sample_rate": plan.sample_rate,
        "delta": plan.delta,
        "accountant": plan.accountant,
        "declared_units": plan.units,
        "not_protected": [
            "validation and test records, which are used to measure and not to train",
            "the number of records, units and labels, which are stated openly",
            "what is shown in training and kept with the model: losses, share of clipped units, batch sizes",
        ],
    }


def learning_rates(steps: int, peak: float) -> Sequence[float]:
    """Five warm-up steps, then linear decay to a tenth of `peak`."""
    warm = min(5, steps)
    rates = [peak * (step + 1) / warm for step in range(warm)]
    rest = max(1, steps - warm)
    return rates + [peak * (1 - 0.9 * (step + 1) / rest) for step in range(steps - warm)]
