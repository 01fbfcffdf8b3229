"""Takes a data set away: its records, and what was found record by record. Figures and charges stay.

One transaction marks the versions as removed and writes the audit line; from then on nobody sees them. Then
their files are shredded (core/files.py). A kill in between leaves files that nothing names; `sweep` goes on
from there, at the next removal and at the start of every job.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from appliance.core.db import reading, transaction
from appliance.core.errors import ApplianceError, Busy, NotFound
from appliance.core.events import now
from appliance.core.files import shred
from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.data import store
from appliance.data.store import Dataset
from appliance.models import registry
from appliance.ops import jobs
from appliance.ops.holders import holders
from appliance.ops.jobs import JobView
from appliance.ops.removal import words_of
from appliance.security import audit
from appliance.security.people import guard

ACTION = "data.delete"
_NEWEST = 200  # jobs looked at in full; of older ones only those that run
_ALL = frozenset({"quantize"})  # looks for words of any record in what it calibrates with
_NONE = frozenset({"serve", "docs"})
ROWS = "-rows.json"
"""SUFFIX of evaluate/rows.py, which not every profile can load."""


@dataclass(frozen=True, kw_only=True)
class DataRemoval:
    """What goes with `datasets`: `files` of `size` bytes on the disk. `models` still hold what they learnt
    from them, `bare` those of them that were trained without privacy; `unfinished` jobs keep a checkpoint."""

    asked: str
    datasets: tuple[Dataset, ...]
    files: int
    size: int
    models: tuple[str, ...]
    bare: tuple[str, ...]
    unfinished: tuple[str, ...]

    @property
    def titles(self) -> tuple[str, ...]:
        """name@version of each."""
        return tuple(one.title for one in self.datasets)


def plan(home: Home, asked: str) -> DataRemoval:
    """What would go with `asked`: one version (name@version), or every version of a name. Changes nothing.

    Raises:
        NotFound: there is none. Busy: a running job uses it.
    """
    going = tuple(one for one in store.datasets(home) if asked in (one.name, one.title))
    if not going:
        store.get(home, asked)  # says whether it was removed
        raise NotFound(f"There is no dataset {asked[:80]}.", "See `cloister data list`.")
    held = _held(home, going)
    unfinished = _check_unused(home, going, held)
    files = [file for one in going for file in _files(home, one)]
    return DataRemoval(
        asked=asked,
        datasets=going,
        files=len(files),
        size=sum(file.stat().st_size for file in files),
        models=held,
        bare=tuple(name for name in held if bare(home, name)),
        unfinished=unfinished,
    )


def shown(planned: DataRemoval) -> dict[str, str]:
    """What two people agree to."""
    return {one.title: one.sha256 for one in planned.datasets}


def remove(home: Home, asked: str, *, who: str) -> DataRemoval:
    """Remove it; what was charged for it, its figures, and its reports' figures stay.

    Raises:
        NotFound, Busy: as `plan`. NotAllowed: `who` may not. NeedsApproval: two people have not agreed.
    """
    planned = plan(home, asked)
    with transaction(home) as link:
        guard.spend(link, home, who, ACTION, asked, content=shown(planned))
        _check_unused(home, planned.datasets, planned.models)
        moment = now()
        for one in planned.datasets:
            store.mark_removed(link, one, moment)
            more = {"sha256": one.sha256, "records": sum(one.counts.values()), "models": list(planned.models)}
            audit.record(link, who=who, what=ACTION, target=one.title, **more)
    sweep(home)
    return planned


def sweep(home: Home) -> int:
    """Shred what is left of removed data sets and of imports that were cut off; how many there were."""
    count = 0
    for one in left(home):
        for file in _rows(home, one):
            shred(file)
        shred(one.folder)  # last: it tells that there is something to do
        count += 1
    for draft in home.datasets.glob(".*.draft"):
        if not _alive(home, draft.name[1:].removesuffix(".draft")):
            shred(draft)
            count += 1
    return count


def left(home: Home) -> list[Dataset]:
    """Removed data sets whose files are still there: a kill came in between."""
    return [one for one in store.removed(home) if one.folder.exists()]


def bare(home: Home, name: str) -> bool:
    """Whether a step on the way to the model was trained on records without privacy."""
    steps = registry.lineage(home, name)
    return any(step.trained and step.dataset and not step.facts.get("privacy") for step in steps)


def _held(home: Home, going: tuple[Dataset, ...]) -> tuple[str, ...]:
    held, _ = holders(home)
    return tuple(dict.fromkeys(name for one in going for name in held[one.title]))


def _files(home: Home, dataset: Dataset) -> list[Path]:
    return [*(file for file in dataset.folder.rglob("*") if file.is_file()), *_rows(home, dataset)]


def _rows(home: Home, dataset: Dataset) -> list[Path]:
    """Files with what models answered to its records, one by one."""
    with reading(home) as link:
        made = link.execute("SELECT DISTINCT job FROM reports WHERE dataset = ?", (dataset.title,)).fetchall()
    paths = [home.reports / f"{row['job']}{ROWS}" for row in made]
    return [path for path in paths if path.parent == home.reports and path.is_file()]


def _check_unused(home: Home, going: tuple[Dataset, ...], models: tuple[str, ...]) -> tuple[str, ...]:
    """Check that no running job uses it; the jobs that did and could be resumed.

    Raises:
        Busy: one does.
    """
    names = {word for one in going for word in (one.name, one.title)} | set(models)
    unfinished = []
    for job in [*jobs.jobs(home, _NEWEST), *jobs.older(home, _NEWEST)[0]]:
        if job.state == "done" or job.kind in _NONE or not (job.kind in _ALL or _words(job) & names):
            continue
        if job.state in ("running", "waiting"):
            raise Busy(
                f"Job {job.id} ({job.title}) uses {going[0].name}.",
                f"Wait for its end, or stop it: cloister job stop {job.id}.",
            )
        if any(job.folder.rglob("checkpoint.safetensors")):
            unfinished.append(job.id)
    return tuple(unfinished)


def _words(job: JobView) -> set[str]:
    try:
        return set(words_of(json.loads(read_bytes(job.folder / "spec.json"))["spec"]))
    except (OSError, ValueError, KeyError):
        return set()


def _alive(home: Home, job: str) -> bool:
    try:
        return jobs.view(home, job).state in ("running", "waiting")
    except ApplianceError:
        return False
