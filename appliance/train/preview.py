"""What a run would do, worked out without starting it: nothing is loaded, charged or written.

Counts come from the records, sizes from the base's headers, epsilon from the ledger as it stands. Tokens
are guessed from characters, and so are memory and time; the run counts them when it starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from statistics import mean
from typing import Any

import psutil

from appliance.core.errors import ConfigWrong
from appliance.core.home import Home
from appliance.data import store
from appliance.data.planted import is_planted, made_up_units, make_secrets, planted
from appliance.data.records import Record
from appliance.data.store import Dataset
from appliance.models import registry
from appliance.privacy import ledger, logged, uncharged
from appliance.privacy.accountant import epsilon
from appliance.privacy.ledger import Budget
from appliance.train.asked import objective_for
from appliance.train.material import check_labels
from appliance.train.memory import Memory, Shape, memory, read_shape, trained_parameters
from appliance.train.pace import matmul_speed, run_seconds
from appliance.train.plan import Plan, noise_ratio, plan_open, plan_private, unspent, warnings
from appliance.train.settings import Settings, settings_from
from appliance.train.statement import trained_words

_CHARACTERS = 4  # a token, about
_FRAME = 12  # tokens of a chat template around a record, about
_GPU = Path("/dev/nvidia0")


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """The train split in tokens, guessed: each record's length, and how much of one is learnt."""

    lengths: Sequence[int]
    learnt: float
    records: Counter[str]

    @property
    def mean(self) -> float:
        return mean(self.lengths)


def preview(home: Home, spec: Mapping[str, Any], *, public: bool = False) -> dict[str, Any]:
    """The plan of the training that `spec` describes (see train/job.py), with what it costs, for JSON.

    Of `public` records the noise is planned as if they were private, and nothing is spent.

    Raises:
        PrivacyRefused: the privacy asked for cannot be had. ConfigWrong: bad settings, or a base that is
        none. NotFound, DataRejected, ModelRejected: dataset or base are not there or are damaged.
    """
    settings = settings_from(dict(spec.get("settings", {})))
    dataset = store.get(home, spec["dataset"], spec.get("version"))
    base = registry.get(home, spec["base"])
    if base.kind != "base":
        raise ConfigWrong(f"{base.name} is not a base model.", "Choose one with `cloister model list`.")
    settings = replace(settings, objective=objective_for(settings, dataset.task))
    shape = read_shape(base.path)
    trained = trained_parameters(shape, settings)
    records = store.read(dataset, "train")
    if settings.private and dataset.labels and not dataset.facts.get("labels_declared"):
        check_labels(records)
    secrets = make_secrets(settings.plant_secrets, dataset.labels)
    records += planted(secrets, dataset.task)
    sizes = _sizes(dataset, records, settings, shape.context)
    units, budget = len(sizes.records), None
    if settings.private and public:
        budget = unspent(settings, dataset=dataset.name, unit=dataset.unit or "record", units=units)
    elif settings.private:
        budget = budget_of(home, dataset, units, settings.delta)
    plan = _plan(settings, dataset, sizes, budget, made_up_units(secrets))
    needs = _needs(home, shape, settings, plan, sizes)
    return {
        **plan.as_dict(),
        "dataset": dataset.name,
        "version": dataset.version,
        "synthetic": dataset.synthetic,
        "base": base.name,
        "settings": settings.as_dict(),
        "what": trained_words(settings),
        "trained": trained,
        "parameters": shape.parameters,
        "noise_on_mean": plan.noise_on_mean,
        "noise_ratio": noise_ratio(plan, trained),
        "protected": None if public else _protected(dataset, sizes, settings, plan.made_up),
        "epsilon": _epsilon(plan, budget),
        "memory": needs,
        "seconds": _seconds(shape, settings, plan, sizes),
        "warnings": [*warnings(plan, settings, trained=trained, budget=budget), *_short_of(needs)],
    }


def budget_of(home: Home, dataset: Dataset, units: int, delta: float | None) -> Budget:
    """The dataset's budget as a run would find it; unlike ledger.open_budget it makes none.

    Raises:
        PrivacyRefused: no unit is declared, another unit or delta than the budget's, or public records.
    """
    uncharged.check_private(home, dataset.name)
    unit = store.unit_of(dataset)
    logged.check_agreed(home, dataset.name)
    found = ledger.budget(home, dataset.name)
    if found is None:
        return Budget(
            dataset=dataset.name,
            unit=unit,
            epsilon_limit=ledger.EPSILON_LIMIT,
            delta=delta if delta is not None else ledger.delta_for(units),
        )
    ledger.check_agreed(found, unit, delta)
    return found


def _plan(settings: Settings, dataset: Dataset, sizes: _Sizes, budget: Budget | None, made_up: int) -> Plan:
    records, units = len(sizes.lengths), len(sizes.records)
    if budget is None:
        return plan_open(settings, units=units, records=records)
    most = settings.records_per_unit
    kept = sum(min(count, most) for count in sizes.records.values())
    return plan_private(
        settings,
        units=units,
        candidates=units if settings.sampling == "unit" else kept,
        records=records,
        unit=budget.unit,
        budget=budget,
        made_up=made_up,
    )


def _sizes(dataset: Dataset, records: Sequence[Record], settings: Settings, context: int) -> _Sizes:
    """Token counts by rule of thumb: characters / 4, and the chat template's own."""
    if not records:
        raise ConfigWrong(f"{dataset.name} has no training records.", "Import more records into it.")
    frame, most = _FRAME + len(dataset.prompt) // _CHARACTERS, min(settings.max_tokens, context)
    answers = [max(len(record.answer), len(record.rejected)) // _CHARACTERS + 1 for record in records]
    whole = [
        frame + len(record.text) // _CHARACTERS + answer
        for record, answer in zip(records, answers, strict=True)
    ]
    lengths = [min(most, length) for length in whole]
    all_learnt = dataset.task in ("text", "chat")  # of a chat only its answers, so this is the most
    return _Sizes(
        lengths=lengths,
        learnt=mean(lengths) if all_learnt else min(mean(answers), mean(lengths)),
        records=Counter(
            record.unit if record.unit is not None else f"record:{record.id}" for record in records
        ),
    )


def _protected(dataset: Dataset, sizes: _Sizes, settings: Settings, made_up: int) -> dict[str, Any] | None:
    """Whose privacy, how many, and how many records each; None where nobody's is."""
    if not settings.private:
        return None
    counts = [count for owner, count in sizes.records.items() if not is_planted(owner)]
    return {
        "unit": dataset.unit,
        "units": len(counts),
        "made_up": made_up,
        "records": sum(counts),
        "mean": mean(counts),
        "largest": max(counts),
        "used": settings.records_per_unit,
        "used_in": "step" if settings.sampling == "unit" else "run",
    }


def _epsilon(plan: Plan, budget: Budget | None) -> dict[str, float] | None:
    """Spent before, by this run alone, afterwards, and what is then left of the limit."""
    if budget is None or plan.epsilon_after is None or plan.delta is None:
        return None
    return {
        "before": plan.epsilon_before or 0.0,
        "run": epsilon([plan.charged(plan.steps)], plan.delta),
        "after": plan.epsilon_after,
        "left": budget.epsilon_limit - plan.epsilon_after,
        "limit": budget.epsilon_limit,
        "delta": plan.delta,
    }


def _needs(home: Home, shape: Shape, settings: Settings, plan: Plan, sizes: _Sizes) -> dict[str, Any]:
    """Bytes for this run, for full fine-tuning of the same base, and what this machine has free."""
    teacher = _teacher(home, settings)

    def needed(these: Settings) -> Memory:
        rows, width = _micro_batch(these, plan, sizes)
        learnt = ceil(rows * min(sizes.learnt, width))
        return memory(shape, these, rows=rows, width=width, labelled=learnt, teacher=teacher)

    return {
        **needed(settings).as_dict(),
        "full": needed(replace(settings, method="full", precision="float32", dropout=0.0)).total,
        "free": psutil.virtual_memory().available,
        "gpu": _GPU.exists(),
    }


def _micro_batch(settings: Settings, plan: Plan, sizes: _Sizes) -> tuple[int, int]:
    """Records of the fullest micro-batch (short ones share it), and their tokens each."""
    together = settings.records_per_unit if settings.private and settings.sampling == "unit" else 1
    ordered = sorted(sizes.lengths)
    short, long = ordered[len(ordered) // 10], ordered[-1]
    budget = max(settings.micro_tokens, long * together)
    batch = plan.expected_batch if plan.expected_batch is not None else min(settings.batch, plan.records)
    rows = max(together, min(budget // short, ceil(batch * together)))
    return rows, min(long, max(1, budget // rows))


def _teacher(home: Home, settings: Settings) -> int:
    """Parameters of the teacher, which is held beside the base."""
    if settings.teacher is None:
        return 0
    chain = registry.lineage(home, settings.teacher)
    folder = next((step.path for step in chain if (step.path / "config.json").is_file()), None)
    return read_shape(folder).parameters if folder else 0


def _seconds(shape: Shape, settings: Settings, plan: Plan, sizes: _Sizes) -> float | None:
    """About how long; None where a GPU does the work, whose speed is not known before."""
    if _GPU.exists():
        return None
    batch = plan.expected_batch if plan.expected_batch is not None else min(settings.batch, plan.records)
    if settings.private and settings.sampling == "unit":
        batch *= min(settings.records_per_unit, mean(sizes.records.values()))
    return run_seconds(
        shape,
        settings,
        steps=plan.steps,
        records=batch,
        tokens=batch * sizes.mean,
        labelled=batch * sizes.learnt,
        speed=matmul_speed(),
    )


def _short_of(needs: Mapping[str, Any]) -> list[str]:
    if needs["gpu"] or needs["total"] <= needs["free"]:
        return []
    return [
        f"This needs about {needs['total'] / 1e9:.1f} GB of memory and {needs['free'] / 1e9:.1f} GB are free:"
        " close other programs, or use --checkpointing and a smaller --micro-tokens."
    ]
