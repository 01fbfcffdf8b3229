"""The search job: trials of one training with other settings, the best by validation loss kept.

spec: that of train/job.py, with "over" (space.py), "trials", and "public" if the operator declares the
records public. Each trial lies in a folder of its own under trials/; one that ended is not repeated.

Every trial is charged, not only the one that is kept: all are steps of one mechanism (same noise,
rate and draws), so the price is that of one run of all their steps, whatever the search decided from
trials before (adaptive composition). Only validation records tell which one is best.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

from appliance.core.errors import BudgetSpent, Diverged, NoMemory, PrivacyRefused, out_of_memory
from appliance.core.job import Job
from appliance.models import registry
from appliance.privacy import uncharged
from appliance.train.job import planned
from appliance.train.plan import Plan, plan_open, plan_private, trial_plan, unspent
from appliance.train.searching import Search, check_public, search_from
from appliance.train.setup import Setup, announced, set_up
from appliance.train.trials import Trial, best_of, folder_of, importance, read_trials, suggest, write_trial

_SETTLED = ("done", "failed")


def run(spec: dict[str, Any], job: Job) -> dict[str, Any]:
    """Train every trial, enter the best in the registry (of public records: name its settings only).

    Raises:
        PrivacyRefused, BudgetSpent: the privacy asked for cannot be had. ConfigWrong: bad settings.
        DataRejected, ModelRejected: records or a base that cannot be used. Diverged: no trial ended well.
    """
    search = search_from(spec)
    name = spec.get("name") or f"{search.settings.method}-{job.id}"
    trials = read_trials(job.folder, search.space)
    if not trials:
        registry.check_free(job.home, name, job.id)
    if not search.charged:
        kind = uncharged.PUBLIC if search.public else uncharged.OPEN
        if search.public:
            check_public(job.home, spec["dataset"])
        uncharged.note(job.home, spec["dataset"], job=job.id, kind=kind, who=job.who)
    began, before = time.monotonic(), sum(trial.state in _SETTLED for trial in trials)
    for number in range(1, search.trials + 1):
        past, begun = trials[: number - 1], trials[number - 1 : number]
        if begun and begun[0].state in _SETTLED:
            continue
        trial = _tried(job, spec, search, past, begun)
        trials = [*past, trial, *trials[number:]]
        _tell(job, search, [*past, trial], (time.monotonic() - began) / (number - before))
        _forget(job, trials, best_of(trials))
        if trial.state == "unpaid":
            break
    best = best_of(trials)
    if best is None:
        raise Diverged(
            f"None of the {len(trials)} trials ended with a loss.",
            f"`cloister job tail {job.id}` says how each ended; search lower learning rates.",
        )
    return _kept(job, spec, search, name, trials, best)


def _tried(job: Job, spec: dict[str, Any], search: Search, past: list[Trial], begun: list[Trial]) -> Trial:
    """The next trial, begun or gone on with, to its end."""
    trial = Trial(number=len(past) + 1, settings={})
    if begun:
        trial = begun[0]
    else:
        settings = suggest(search.space, past, first=search.first, seed=search.settings.seed)
        trial = replace(trial, settings=settings)
        write_trial(job.folder, trial)
    began = time.monotonic()
    try:
        trial = replace(trial, why="", **_trained(job, spec, search, trial))
    except BudgetSpent as problem:
        trial = replace(trial, state="unpaid", why=problem.message)
    except (Diverged, NoMemory) as problem:
        trial = replace(trial, state="failed", why=problem.message)
    except (RuntimeError, MemoryError) as problem:
        if not out_of_memory(problem):
            raise
        trial = replace(trial, state="failed", why="There is not enough memory.")
    trial = replace(trial, seconds=trial.seconds + time.monotonic() - began)
    write_trial(job.folder, trial)
    return trial


def _trained(job: Job, spec: dict[str, Any], search: Search, trial: Trial) -> dict[str, Any]:
    """How a trial's training ended, as fields of Trial."""
    from appliance.train.loop import mean_loss
    from appliance.train.run import train_setup

    setup, plan = _ready(job, spec, search, trial)
    if trial.number == 1:
        job.emit("plan", **announced(job, setup, plan), **search.told())
    trained = train_setup(
        job,
        setup,
        plan,
        folder=folder_of(job.folder, trial.number),
        name=f"trial {trial.number}",
        title=f"trial {trial.number}/{search.trials}",
        charged=search.charged,
    )
    if trained.stopped == "diverged":
        raise Diverged("Loss or weights were no longer numbers.")
    validation = setup.material.validation
    loss = mean_loss(setup.model, setup.loss, validation, setup.device, setup.settings.micro_tokens)
    if not math.isfinite(loss):
        raise Diverged("The validation loss is not a number.")
    return {"state": "done", "loss": loss, "steps": trained.done, "stopped": trained.stopped}


def _ready(job: Job, spec: dict[str, Any], search: Search, trial: Trial) -> tuple[Setup, Plan]:
    """A trial's set-up and plan."""
    folder = folder_of(job.folder, trial.number)
    setup = set_up(job, spec, replace(search.settings, **trial.settings), folder)
    if not setup.material.validation:
        raise PrivacyRefused(
            "There are no validation records to choose by.",
            "Import more records: a tenth goes to validation.",
        )
    return setup, _plan(job, search, setup)


def _plan(job: Job, search: Search, setup: Setup) -> Plan:
    """A trial's plan: its share of the whole search where that is charged, else one of its own."""
    settings, material = setup.settings, setup.material
    if not settings.private:
        return plan_open(settings, units=material.units, records=len(material.records))
    if not search.charged:
        unit = setup.dataset.unit or "record"
        return plan_private(
            settings,
            units=material.units,
            candidates=len(material.groups),
            records=len(material.records),
            unit=unit,
            budget=unspent(settings, dataset=setup.dataset.name, unit=unit, units=material.units),
        )
    whole = replace(search.whole, objective=settings.objective)
    return trial_plan(planned(job, replace(setup, settings=whole)), settings, search.steps)


def _tell(job: Job, search: Search, trials: list[Trial], seconds: float) -> None:
    """One line on the trial that just ended."""
    trial, best = trials[-1], best_of(trials)
    tried = ", ".join(f"{name} {_figure(value)}" for name, value in trial.settings.items())
    if trial.loss is None:
        ended = f"{trial.state}: {trial.why.rstrip('.')}"
    else:
        ended = f"validation loss {trial.loss:.4f}" + (", the best so far" if best == trial else "")
    rest = search.trials - trial.number
    left = f" About {max(1, round(rest * seconds / 60))} min left." if rest else ""
    job.log(f"Trial {trial.number} of {search.trials} ({tried}): {ended}.{left}")


def _forget(job: Job, trials: list[Trial], kept: Trial | None) -> None:
    """Drop the weights of trials that have ended, but for the one to keep."""
    for trial in trials:
        if trial != kept and trial.state in _SETTLED:
            for file in folder_of(job.folder, trial.number).glob("*.safetensors"):
                file.unlink()


def _figure(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _kept(
    job: Job, spec: dict[str, Any], search: Search, name: str, trials: list[Trial], best: Trial
) -> dict[str, Any]:
    """Enter the best trial's weights as they are, and say what was found."""
    from appliance.train.result import release
    from appliance.train.run import train_setup

    setup, plan = _ready(job, spec, search, best)
    found = {
        **search.told(),
        "tried": [trial.as_dict() for trial in trials],
        "best": best.as_dict(),
        "importance": importance(search.space, trials),
        "seconds": sum(trial.seconds for trial in trials),
    }
    if search.public:
        _forget(job, trials, None)
        released: dict[str, Any] = {"name": None, "base": setup.base.name, "privacy": None}
    else:
        folder = folder_of(job.folder, best.number)
        ended = replace(plan, steps=best.steps)  # it takes no step more, even if there is budget again
        trained = train_setup(job, setup, ended, folder=folder, name=name, charged=search.charged)
        trained = replace(trained, stopped=best.stopped)
        others = [trial.steps for trial in trials if trial != best and trial.loss is not None]
        released = release(job, setup, plan, trained, name=name, others=others, facts={"search": found})
    return {**released, **found, "plot": _drawn(job, search, setup, trials)}


def _drawn(job: Job, search: Search, setup: Setup, trials: list[Trial]) -> str | None:
    """The picture of the trials; a search is not lost for want of one."""
    from appliance.train.trial_plot import draw_trials

    picture = job.home.reports / f"{job.id}-trials.png"
    try:
        draw_trials(trials, search.space, picture, synthetic=setup.dataset.synthetic)
    except (ValueError, ArithmeticError) as problem:
        job.log(f"The trials could not be drawn ({type(problem).__name__}).")
        return None
    return str(picture)
