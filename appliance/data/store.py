"""Datasets: versioned, split, immutable once published.

On disk `home.datasets/<name>/v<k>/` holds train.jsonl, val.jsonl, test.jsonl (one record a line) and
dataset.json. A version exists when its row does: the folder is moved into place and the row and its
audit line are written in one transaction, so a crash leaves at most a folder that nothing names and
that the next import replaces. Of a version that was removed the row stays with its figures, marked: its
number is not given again (ops/data_removal.py).
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from appliance.core.db import reading, transaction
from appliance.core.errors import ConfigWrong, DataRejected, NotFound, PrivacyRefused
from appliance.core.events import now
from appliance.core.files import move_in, sha256_file, sync, write_json
from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.data.records import Record, record_from, record_line
from appliance.data.split import SPLITS
from appliance.security import audit

# How the model is asked, by task. A chat brings its own turns and running text is not asked for.
PROMPTS = {
    "label": "Message: {text}\nLabel?",
    "answer": "{text}",
    "preference": "{text}",
    "chat": "",
    "text": "",
}
_HERE = "(COALESCE(json_extract(facts, '$.removed'), '') = '')"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One version. `unit` is the noun of whose privacy is protected, None where none was declared.

    `task` is one of PROMPTS; `prompt` is empty where the task has none. `removed`: when its records were,
    "" while they are here.
    """

    name: str
    version: int
    folder: Path
    task: str
    labels: tuple[str, ...]
    unit: str | None
    counts: dict[str, int]
    units: dict[str, int]
    prompt: str
    sha256: str
    synthetic: bool
    job: str = ""
    created: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    removed: str = ""

    @property
    def title(self) -> str:
        """name@version, as the registry writes it."""
        return f"{self.name}@{self.version}"


def unit_of(dataset: Dataset) -> str:
    """The noun of whose privacy is protected.

    Raises:
        PrivacyRefused: none was declared.
    """
    if dataset.unit is None:
        raise PrivacyRefused(
            f"{dataset.name} does not say whose privacy is protected.",
            "Import it again with --unit COLUMN (the patient), or --unit-is-record for single records.",
        )
    return dataset.unit


def check_name(name: str) -> str:
    """`name` itself, when it can be a dataset's name.

    Raises:
        ConfigWrong: it cannot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigWrong(
            "A dataset's name has 1 to 64 letters, digits, '-', '_' or '.'; the first is a letter or digit.",
            "Choose another name.",
        )
    return name


def get(home: Home, name: str, version: int | None = None) -> Dataset:
    """The dataset `name`, its newest version unless one is asked for; `name@version` works too.

    Raises:
        NotFound: there is none.
    """
    name, _, asked = name.partition("@")
    if asked and version is None:
        version = int(asked) if asked.isdigit() else -1
    query = (
        "SELECT * FROM datasets WHERE name = ? AND (? IS NULL OR version = ?)"  # noqa: S608 - _HERE is our own
        f" ORDER BY {_HERE} DESC, version DESC LIMIT 1"
    )
    with reading(home) as link:
        row = link.execute(query, (name, version, version)).fetchone()
    wanted = name if version is None else f"{name} with version {version}"
    if row is None:
        raise NotFound(f"There is no dataset {wanted}.", "See `cloister data list`.")
    found = _dataset(home, row)
    if found.removed:
        raise NotFound(
            f"The records of {found.title} were removed on {found.removed[:10]}.",
            "See `cloister data list` for those that are here.",
        )
    return found


def datasets(home: Home) -> list[Dataset]:
    """Every version of every dataset, by name, oldest version first."""
    with reading(home) as link:
        query = f"SELECT * FROM datasets WHERE {_HERE} ORDER BY name, version"  # noqa: S608
        return [_dataset(home, row) for row in link.execute(query)]


def removed(home: Home) -> list[Dataset]:
    """Every version whose records were removed: its figures alone."""
    with reading(home) as link:
        query = f"SELECT * FROM datasets WHERE NOT {_HERE} ORDER BY name, version"  # noqa: S608
        return [_dataset(home, row) for row in link.execute(query)]


def mark_removed(link: sqlite3.Connection, dataset: Dataset, moment: str) -> None:
    """Have a version be here no more, in the caller's transaction: figures stay, words of records go.

    Raises:
        NotFound: it is not here any more.
    """
    page = _page(replace(dataset, labels=(), prompt="", facts={}, removed=moment))
    done = link.execute(
        f"UPDATE datasets SET facts = ? WHERE name = ? AND version = ? AND {_HERE}",  # noqa: S608
        (json.dumps(page), dataset.name, dataset.version),
    )
    if done.rowcount != 1:
        raise NotFound(f"There is no dataset {dataset.title}.", "See `cloister data list`.")


def made_by(home: Home, name: str, job: str) -> Dataset | None:
    """The version of `name` that `job` has published, if it has."""
    with reading(home) as link:
        return _made_by(home, link, name, job)


def read(dataset: Dataset, split: str) -> list[Record]:
    """The records of one split ("train", "val" or "test").

    Raises:
        ConfigWrong: there is no such split.
        DataRejected: the file is gone or is not, byte for byte, the one that was published.
    """
    if split not in SPLITS:
        raise ConfigWrong(f"There is no split {split}.", f"Take one of {', '.join(SPLITS)}.")
    try:
        content = read_bytes(dataset.folder / f"{split}.jsonl")
    except OSError as problem:
        raise _damaged(dataset) from problem
    if hashlib.sha256(content).hexdigest() != dataset.facts["files"][split]:
        raise _damaged(dataset)
    return [record_from(line) for line in content.splitlines()]


def write_splits(draft: Path, parts: Mapping[str, Iterable[Record]]) -> None:
    """Write the split files into the folder `draft`, made anew: what a crash left there goes."""
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    for name in SPLITS:
        with (draft / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(record_line(record) + "\n" for record in parts[name])


def publish(
    home: Home,
    draft: Path,
    *,
    name: str,
    task: str,
    labels: tuple[str, ...],
    unit: str | None,
    counts: Mapping[str, int],
    units: Mapping[str, int],
    prompt: str,
    synthetic: bool,
    facts: Mapping[str, Any],
    job: str,
    who: str,
) -> tuple[Dataset, bool]:
    """Turn the folder `draft` (see `write_splits`) into the next version of `name`.

    Returns the dataset and whether it was there already: this job has published it before, or an
    earlier import brought the same records in the same splits under the same settings. Then `draft`
    is left for the caller to remove. The draft must lie on the disk of `home.datasets`, or in
    memory where that is sealed (core.files.work_folder).
    """
    settings = {"task": task, "labels": labels, "unit": unit, "prompt": prompt, "synthetic": synthetic}
    if facts.get("labels_declared"):  # the same records mean something else once their labels are known
        settings["labels_declared"] = True
    files = {split: sha256_file(draft / f"{split}.jsonl") for split in SPLITS}
    sha256 = hashlib.sha256(json.dumps([settings, files], sort_keys=True).encode()).hexdigest()
    with transaction(home) as link:
        if old := _made_by(home, link, name, job) or _same(home, link, name, sha256):
            return old, True
        newest = link.execute("SELECT MAX(version) FROM datasets WHERE name = ?", (name,)).fetchone()[0]
        version = (newest or 0) + 1
        dataset = Dataset(
            name=name,
            version=version,
            folder=home.datasets / name / f"v{version}",
            task=task,
            labels=labels,
            unit=unit,
            counts=dict(counts),
            units=dict(units),
            prompt=prompt,
            sha256=sha256,
            synthetic=synthetic,
            job=job,
            created=now(),
            facts={**facts, "files": files},
        )
        page = _page(dataset)
        write_json(draft / "dataset.json", page)
        _move(draft, dataset.folder)
        link.execute(
            "INSERT INTO datasets (name, version, created, job, sha256, facts) VALUES (?, ?, ?, ?, ?, ?)",
            (name, version, dataset.created, job, sha256, json.dumps(page)),
        )
        audit.record(
            link,
            who=who,
            what="data.import",
            target=dataset.title,
            sha256=sha256,
            records=sum(counts.values()),
            unit=unit,
            synthetic=synthetic,
        )
    return dataset, False


def _move(draft: Path, folder: Path) -> None:
    """A folder in the way has no row: a crash left it."""
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    move_in(draft, folder)
    sync(folder.parent.parent)


def _made_by(home: Home, link: sqlite3.Connection, name: str, job: str) -> Dataset | None:
    query = f"SELECT * FROM datasets WHERE name = ? AND job = ? AND {_HERE}"  # noqa: S608
    row = link.execute(query, (name, job)).fetchone()
    return _dataset(home, row) if row else None


def _same(home: Home, link: sqlite3.Connection, name: str, sha256: str) -> Dataset | None:
    query = (
        f"SELECT * FROM datasets WHERE name = ? AND sha256 = ? AND {_HERE}"  # noqa: S608
        " ORDER BY version DESC LIMIT 1"
    )
    row = link.execute(query, (name, sha256)).fetchone()
    return _dataset(home, row) if row else None


def _page(dataset: Dataset) -> dict[str, Any]:
    page = asdict(dataset)
    del page["folder"]
    return page


def _dataset(home: Home, row: sqlite3.Row) -> Dataset:
    page = json.loads(row["facts"])
    folder = home.datasets / row["name"] / f"v{row['version']}"
    return Dataset(**{**page, "labels": tuple(page["labels"]), "folder": folder})


def _damaged(dataset: Dataset) -> DataRejected:
    return DataRejected(
        f"The files of {dataset.title} are not those that were published.",
        "Restore the home folder from its backup, or import the records again.",
    )
