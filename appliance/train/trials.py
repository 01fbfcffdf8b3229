"""The trials of a search, one small file each, and what optuna would try next after them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from appliance.core.errors import ConfigWrong
from appliance.core.files import write_json
from appliance.core.reading import read_bytes
from appliance.train.space import Choice, Range, Space, count, every, holds

STATES = ("begun", "done", "failed", "unpaid")
_BLIND = 4  # trials before the sampler looks at what the others gave
_TELLING = 8  # fewer finished trials say nothing of which setting mattered


@dataclass(frozen=True, kw_only=True)
class Trial:
    """`settings` are those searched; `loss` is the validation loss of its weights (nats a record).

    `state` is one of STATES: "failed" says in `why` how, "unpaid" had no budget for a step. `stopped` is
    run.Trained's.
    """

    number: int
    settings: dict[str, Any]
    state: str = "begun"
    loss: float | None = None
    steps: int = 0
    stopped: str | None = None
    seconds: float = 0.0
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def folder_of(job: Path, number: int) -> Path:
    """Where trial `number` of the search in the folder `job` keeps its files."""
    return job / "trials" / f"{number:03d}"


def read_trials(job: Path, space: Space) -> list[Trial]:
    """The trials begun so far, in their order.

    Raises:
        ConfigWrong: a file was changed by hand.
    """
    found = []
    for number, path in enumerate(sorted((job / "trials").glob("*/trial.json")), start=1):
        try:
            trial = Trial(**json.loads(read_bytes(path)))
            sound = trial.number == number and trial.state in STATES and holds(space, trial.settings)
        except (ValueError, TypeError, AttributeError):
            sound = False
        if not sound:
            raise ConfigWrong("The trials in the job's folder were changed.", "Start a new search.")
        found.append(trial)
    return found


def write_trial(job: Path, trial: Trial) -> None:
    """Keep a trial, durably."""
    folder = folder_of(job, trial.number)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "trial.json", trial.as_dict())


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The finished trial with the lowest validation loss, the earlier of two equals."""
    done = [(trial.loss, trial.number, trial) for trial in trials if trial.loss is not None]
    return min(done)[2] if done else None


def suggest(
    space: Space, past: Sequence[Trial], *, first: dict[str, Any] | None, seed: int
) -> dict[str, Any]:
    """What to try after `past`: `first` if it is the first, else by optuna's tree of Parzen estimators.

    Nothing is tried twice. The same past gives the same answer (Bergstra et al. 2011, "Algorithms for
    hyper-parameter optimization"; the first few are drawn blindly).
    """
    import optuna

    if not past and first is not None:
        return first
    sampler = optuna.samplers.TPESampler(n_startup_trials=_BLIND, seed=(seed + len(past)) % 2**32)
    found = dict(_study(space, past, sampler).ask(_distributions(space)).params)
    tried = [trial.settings for trial in past]
    if found in tried and count(space) is not None:
        found = next(settings for settings in every(space) if settings not in tried)
    return found


def importance(space: Space, past: Sequence[Trial]) -> dict[str, float]:
    """Share of the loss's variance that each setting explains (functional ANOVA); {} if too few ended."""
    import optuna

    done = [trial for trial in past if trial.loss is not None]
    if len(done) < _TELLING or len(space) < 2 or len({trial.loss for trial in done}) == 1:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        found = optuna.importance.get_param_importances(_study(space, done), evaluator=evaluator)
    except (ValueError, ArithmeticError):  # ranges too wide to divide: no reason to lose the search
        return {}
    return {name: float(share) for name, share in found.items()}


def _study(space: Space, past: Sequence[Trial], sampler: Any = None) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler)
    for trial in past:
        failed = trial.loss is None
        study.add_trial(
            optuna.trial.create_trial(
                params=trial.settings,
                distributions=_distributions(space),
                value=trial.loss,
                state=optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE,
            )
        )
    return study


def _distributions(space: Mapping[str, Choice | Range]) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def one(values: Choice | Range) -> Any:
        if isinstance(values, Choice):
            return CategoricalDistribution(values.values)
        if values.whole:
            return IntDistribution(int(values.low), int(values.high), log=values.low > 0)
        return FloatDistribution(values.low, values.high, log=values.low > 0)

    return {name: one(values) for name, values in space.items()}
