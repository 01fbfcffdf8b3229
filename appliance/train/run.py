"""One training run from its set-up to trained weights: charged, checkpointed, told, resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from appliance.core.errors import BudgetSpent, Diverged
from appliance.core.files import need_room
from appliance.core.job import Job
from appliance.privacy import ledger
from appliance.privacy.accountant import epsilon
from appliance.train import loop
from appliance.train.engine import check_engine, engine_for
from appliance.train.optimiser import Optimiser
from appliance.train.plan import Plan
from appliance.train.ranks import SOLO, Ranks
from appliance.train.setup import Setup

_EPSILON_MARKS = 5
_BYTES = 28  # on disk for a trained parameter: two checkpoints with two moments each, and the result
_LOOKS = 5  # validations in a run, twice as many where one can end it

History = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The set-up's model holds the weights after step `kept` of the `done` that were taken.

    `stopped` says why a run ended before its plan: "budget", "early", "diverged", or None.
    """

    history: History
    done: int
    kept: int
    stopped: str | None


def train_setup(
    job: Job,
    setup: Setup,
    plan: Plan,
    *,
    folder: Path,
    name: str,
    title: str = "train",
    charged: bool = True,
    ranks: Ranks = SOLO,
) -> Trained:
    """Train `setup.model` by `plan`; goes on from the checkpoint in `folder` if there is one.

    A private run is charged to the dataset's budget step by step, unless `charged` says that its records
    were declared public.

    Raises:
        BudgetSpent: not a single step can be paid. Diverged: the first step failed. NoRoom: the disk is full.
    """
    settings, material, tuned = setup.settings, setup.material, setup.model
    need_room(job.home.path, 50_000_000 + _BYTES * setup.trained)
    optimiser = Optimiser(tuned, plan)
    checkpoint = folder / "checkpoint.safetensors"
    start, history = optimiser.load(checkpoint) if checkpoint.exists() else (0, [])
    start = ranks.from_first(start)
    if 0 < start < plan.steps:
        job.log(f"Goes on after step {start}.")
    engine = engine_for(tuned, setup.loss, setup.device) if settings.private else None
    charge: Callable[[int], None] | None = None
    if engine is None:
        update = loop.open_update(tuned, setup.loss, material.records, settings, start, setup.device, ranks)
    else:
        sample = [material.groups[0][0], material.groups[-1][0]]
        without_dropout(tuned)  # with it the same record differs from itself
        check_engine(engine, sample, settings.precision)
        tuned.train()
        update = loop.private_update(engine, material.groups, plan, settings, ranks)
        charge = charger(job, setup, plan, name, ranks) if charged else None
    marks = _epsilon_marks(job, plan, setup, start) if charged else []
    began = time.monotonic()
    every = max(1, plan.steps // (2 * _LOOKS if settings.early_stop else _LOOKS))

    def tell(found: loop.StepFacts) -> None:
        if not ranks.first:
            return
        facts: dict[str, Any] = asdict(found)
        facts["epsilon"] = next((cost for at, cost in marks if found.step <= at), None)
        if material.validation and (found.step % every == 0 or found.step == plan.steps):
            facts["validation_loss"] = loop.mean_loss(
                tuned, setup.loss, material.validation, setup.device, settings.micro_tokens
            )
        facts["tokens_per_second"] = found.tokens / found.seconds if found.seconds else 0.0
        facts["loss"] = None if math.isnan(found.loss) else found.loss
        if found.pieces > (history[-1]["pieces"] if history else 1):
            job.log(f"Memory ran out: micro-batches are cut into {found.pieces} pieces from now on.")
        left = (time.monotonic() - began) / (found.step - start) * (plan.steps - found.step)
        history.append(facts)
        shown = {key: value for key, value in facts.items() if key != "step"}
        job.progress(title, found.step, plan.steps, left=left, **shown)

    def saved(step: int) -> None:
        if not ranks.first:
            return
        best = best_path(folder, history)
        if settings.early_stop and best_step(history) == step:
            optimiser.save(best, step, history)
        optimiser.save(checkpoint, step, history)
        for old in folder.glob("best-*.safetensors"):
            if old != best:  # only now: until here the checkpoint's history named the old one
                old.unlink()

    def enough() -> bool:
        return ranks.from_first(looked_enough(history, settings.early_stop))

    stopped: str | None = None
    try:
        done = loop.train(
            update,
            optimiser,
            start=start,
            steps=plan.steps,
            charge=charge,
            saved=saved,
            tell=tell,
            enough=enough if settings.early_stop else lambda: False,
        )
    except Diverged as problem:
        if not checkpoint.exists():
            raise
        done, history = optimiser.load(checkpoint)
        job.log(f"{problem.message} Stopped; the weights after step {done} are kept. {problem.hint}")
        stopped = "diverged"
    finally:
        if engine is not None:
            engine.close()
    if done == 0:
        raise BudgetSpent(
            f"The privacy budget of {setup.dataset.name} does not allow a single step.",
            "See `cloister budget show`.",
        )
    kept = done
    if settings.early_stop and best_step(history):
        kept, _ = optimiser.load(best_path(folder, history))
    if stopped is None and done < plan.steps:
        stopped = "early" if looked_enough(history, settings.early_stop) else "budget"
        why = "Validation got no better" if stopped == "early" else "Epsilon is spent"
        job.log(f"{why}: stopped after {done} of {plan.steps} steps; the weights of step {kept} are kept.")
    return Trained(history=history, done=done, kept=kept, stopped=stopped)


def without_dropout(model: Any) -> None:
    """Switch dropout off and leave everything else in training mode, as Opacus' hooks need it."""
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.eval()


def best_step(history: Sequence[dict[str, Any]]) -> int:
    """The step with the lowest validation loss so far; 0 before the first validation."""
    looks = [(point["validation_loss"], point["step"]) for point in history if "validation_loss" in point]
    return int(min(looks)[1]) if looks else 0


def best_path(folder: Path, history: Sequence[dict[str, Any]]) -> Path:
    """Where the weights of the best step are: a crash between two files must not pair them wrongly."""
    return folder / f"best-{best_step(history)}.safetensors"


def looked_enough(history: Sequence[dict[str, Any]], patience: int) -> bool:
    """Whether `patience` validations in a row brought no better loss; never with a patience of 0."""
    looks = [point["step"] for point in history if "validation_loss" in point]
    return bool(patience and looks) and sum(step > best_step(history) for step in looks) >= patience


def charger(job: Job, setup: Setup, plan: Plan, name: str, ranks: Ranks) -> Callable[[int], None]:
    """What charges one step before it is taken; what the first process may not pay, none takes."""
    purse = ledger.Purse(
        job.home,
        setup.dataset.name,
        job=job.id,
        run=plan.charged(plan.steps),
        limit=setup.settings.epsilon or math.inf,
    )

    def charge(step: int) -> None:
        refused: BudgetSpent | None = None
        if ranks.first:
            try:
                purse.charge(1, step=step + 1, model=name)
            except BudgetSpent as problem:
                refused = problem
        if ranks.from_first(refused is not None):
            raise refused or BudgetSpent("The budget is spent.")

    return charge


def _epsilon_marks(job: Job, plan: Plan, setup: Setup, start: int) -> list[tuple[int, float]]:
    """(step, epsilon of the dataset's history at that step), rising; shown as "at most" in between.

    A run that goes on after `start` has been charged for steps that it takes again; it ends where its
    limit is reached, so no figure is above that.
    """
    if plan.noise_multiplier is None or plan.delta is None:
        return []
    found = ledger.budget(job.home, setup.dataset.name)
    if found is None:
        return []
    history, limit = found.history, min(found.epsilon_limit, setup.settings.epsilon or math.inf)
    places = sorted(
        {max(start + 1, plan.steps * mark // _EPSILON_MARKS) for mark in range(1, _EPSILON_MARKS + 1)}
    )
    return [
        (step, min(limit, epsilon([*history, plan.charged(step - start)], plan.delta))) for step in places
    ]
