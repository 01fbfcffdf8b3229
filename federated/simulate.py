"""A federation played on one machine, for planning: real seats, gate, averages and training, no links.

spec: what Wanted names. Without a dataset the sites get made-up messages of a clinic (data/inbox.py),
without a base the shipped one. Every round is the course of federated/course.py, on a folder of this job
that is thrown away; nothing is entered in the registry. Simulated sites have no ledger: what the accuracies
tell of a real dataset is not charged, so the dataset is noted as learnt from without privacy
(privacy/uncharged.py).

A simulation that was killed begins anew.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from appliance.core.errors import ConfigWrong, PrivacyRefused
from appliance.core.files import need_room, work_folder
from appliance.core.job import Job
from appliance.core.reading import local
from appliance.data import inbox, store
from appliance.data.records import Record
from appliance.models import registry
from appliance.models.importing import DEMO_BASE
from appliance.models.task import PROMPT, Task
from appliance.privacy import uncharged
from federated import checkpoint, course, simulate_engines, simulated
from federated.aggregate import least_sites
from federated.course import Course
from federated.simulate_world import Judge, Terms, federation_of, laid_out
from federated.simulated import World
from federated.split import dealt

_MADE_UP, _MADE_UP_EACH = 20_000, (120, 400)  # patients in all, about; the least and most a site
_HELD_OUT = 300  # records that the accuracy of a round is measured on
_MOST = 2000


@dataclass(frozen=True, kw_only=True)
class Wanted(Terms):
    """The spec, checked. `batch` is the records of a step, on average; `records` bounds what sites get in all
    (0: everything), `held_out` what accuracy is measured on."""

    sites: int
    rounds: int
    dataset: str | None = None
    version: int | None = None
    base: str | None = None
    split: str = "iid"
    alpha: float = 0.5
    engine: str = "flower"
    workers: int = 2
    records: int = 0
    held_out: int = _HELD_OUT
    train: bool = True


def wanted(spec: dict[str, Any]) -> Wanted:
    """The spec as it will be played.

    Raises:
        ConfigWrong: a name or value that cannot be; the engine is not installed.
    """
    if unknown := sorted(set(spec) - {field.name for field in fields(Wanted)}):
        raise ConfigWrong(f"Unknown: {', '.join(unknown)}.", "See: cloister federate simulate --help")
    asked = Wanted(**spec)
    if not 2 <= asked.sites <= _MOST or not 1 <= asked.rounds <= 10_000 or not 1 <= asked.workers <= 64:
        raise ConfigWrong(
            f"{asked.sites} sites, {asked.rounds} rounds and {asked.workers} processes cannot be simulated.",
            f"Take 2 to {_MOST} --sites, at least 1 of --rounds, and 1 to 64 --workers.",
        )
    least = least_sites("mean" if asked.rule == "products" else asked.rule)  # type: ignore[arg-type]
    if asked.sites < least:
        raise ConfigWrong(f"{asked.rule} needs {least} sites.", "Take more --sites, or --rule mean.")
    simulate_engines.check_engine(asked.engine)
    return asked


def run(spec: dict[str, Any], job: Job) -> dict[str, Any]:
    """Play all rounds; see `play` for the result.

    Raises:
        ConfigWrong, NotFound: the spec. PrivacyRefused: too few sites have enough units. DataRejected,
            ModelRejected: records or base that cannot be used. JobFailed: a process that plays sites ended.
    """
    asked = wanted(spec)
    world, training, held_out = _material(asked, job)
    folder = work_folder(job.folder / "world")
    try:
        return play(asked, world, training, held_out, folder, job.emit)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def play(
    asked: Wanted,
    world: World,
    training: Sequence[Record],
    held_out: Sequence[Record],
    folder: Path,
    emit: Callable[..., None],
    parts: Sequence[Sequence[Record]] | None = None,
) -> dict[str, Any]:
    """Deal the records (unless `parts` are given), play the rounds in `folder`, judge each adapter.

    The result: {"rounds": [{"round", "accuracy", "seconds", "scoring_seconds", "training_seconds", "sites",
    "refused"}], "sites", "left_out", "epsilon_per_site", "delta", "records", "bytes_per_update", "final"};
    training_seconds are CPU seconds of all sites together.
    """
    if parts is None:
        split: Any = asked.split
        parts = dealt(training, asked.sites, split, alpha=asked.alpha, seed=asked.seed)
    names = [f"site-{number:04}" for number in range(1, len(parts) + 1)]
    units = [len({record.unit or record.id for record in part}) for part in parts]
    federation, start, judge = federation_of(asked, world, dict(zip(names, units, strict=True)), held_out)
    need_room(
        folder, 50_000_000 + 40 * start.size * asked.sites
    )  # answers that a seat keeps, and what was left
    held = laid_out(folder, federation, world, dict(zip(names, parts, strict=True)), start, judge.layout)
    done: dict[str, Any] = {"rounds": []}

    def body(call: simulate_engines.Call) -> None:
        done.update(_prepared(call, names, federation.rounds.quorum, asked, emit))
        done["rounds"] += _rounds(held, call, done.pop("there"), judge, emit)

    engine: Any = asked.engine
    simulate_engines.played(engine, str(folder), names, asked.workers, body)
    return done | {
        "delta": federation.training.delta if federation.training.private else None,
        "records": {"least": min(map(len, parts)), "most": max(map(len, parts)), "all": sum(map(len, parts))},
        "bytes_per_update": judge.update_bytes,
        "final": judge.final,
    }


def _prepared(
    call: simulate_engines.Call, names: list[str], quorum: int, asked: Wanted, emit: Callable[..., None]
) -> dict[str, Any]:
    found: list[simulated.Ready] = []
    for some in call(simulated.prepared, names):
        found += some
        emit("progress", stage="read records", done=len(found), total=len(names))
    there = [one.site for one in found if not one.refused]
    why = sorted(one.refused for one in found if one.refused)
    if len(there) < quorum:
        raise PrivacyRefused(
            f"Only {len(there)} of {len(names)} sites could take part. {why[0]}",
            "Take fewer --sites, more records, or --no-privacy to plan the rounds alone.",
        )
    if why:
        emit("log", text=f"{len(why)} of {len(names)} sites cannot take part. One of them: {why[0]}")
    spent = [one.epsilon for one in found if one.epsilon is not None]
    return {
        "there": there,
        "sites": len(there),
        "left_out": len(why),
        "epsilon_per_site": max(spent) if asked.private and spent else None,
    }


def _rounds(
    held: Course, call: simulate_engines.Call, there: list[str], judge: Judge, emit: Callable[..., None]
) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    count, began = held.federation.rounds.count, time.monotonic()
    for number in range(1, count + 1):
        start = time.monotonic()
        state = course.begin(held, there, now=time.time())
        _, now = held.last()
        asked = (number, len(state.cohort), now.adapter.astype("<f4").tobytes())
        seconds, answers = 0.0, 0
        for some in call(simulated.answered, list(state.open), *asked):
            for one in some:
                seconds, answers = seconds + one.seconds, answers + 1
                if isinstance(one.content, bytes):
                    state, _ = course.receive(held, state, one.content)
                else:
                    state = course.objected(held, state, one.site, one.content)
            share = number - 1 + answers / len(state.cohort)
            left = (time.monotonic() - began) / share * (count - share)
            emit("progress", stage="rounds", done=round(share, 3), total=count, left=left)
        record = course.close(held, state)
        _, now = held.last()
        closed = time.monotonic()
        accuracy = judge.of(now.adapter)
        row = {
            "round": number,
            "accuracy": accuracy,
            "seconds": round(time.monotonic() - start, 3),
            "scoring_seconds": round(time.monotonic() - closed, 3),
            "training_seconds": round(seconds, 3),
            "sites": len(record.updates),
            "refused": dict(Counter(record.refused.values())),
        }
        emit("simulated", **row)
        made.append(row)
        shutil.rmtree(checkpoint.folder_of(held.home, number) / "updates", ignore_errors=True)
    return made


def _material(asked: Wanted, job: Job) -> tuple[World, list[Record], list[Record]]:
    """Base and task, the records to deal, and those to measure on."""
    base = DEMO_BASE if asked.base is None else local(registry.intact(job.home, asked.base)[0].path)
    draw = np.random.default_rng(asked.seed)
    if asked.dataset is None:
        least, most = _MADE_UP_EACH
        each = min(most, max(least, _MADE_UP // asked.sites))
        training = [
            record
            for record in inbox.generate(asked.seed, each * asked.sites)
            if record.answer in inbox.LABELS
        ]
        other = [record for record in inbox.generate(asked.seed + 1, 400) if record.answer in inbox.LABELS]
        task, unit = Task(kind="label", prompt=PROMPT, labels=inbox.LABELS), "patient"
    else:
        dataset = store.get(job.home, asked.dataset, asked.version)
        if dataset.task != "label":
            raise ConfigWrong(
                f"{dataset.name} has no labels to be right about.", "Simulate with a dataset of labels."
            )
        if not dataset.synthetic:
            uncharged.note(job.home, dataset.name, job=job.id, kind=uncharged.OPEN, who=job.who)
        task = Task(kind="label", prompt=dataset.prompt, labels=dataset.labels)
        unit = dataset.unit or "record"
        training, other = store.read(dataset, "train"), store.read(dataset, "val")
    return (
        World(base=str(base), task=task.as_dict(), unit=unit, batch=asked.batch, train=asked.train),
        (_some(training, asked.records, draw)),
        _some(other, asked.held_out, draw),
    )


def _some(records: list[Record], count: int, draw: np.random.Generator) -> list[Record]:
    if not 0 < count < len(records):
        return records
    return [records[place] for place in sorted(draw.choice(len(records), count, replace=False))]
