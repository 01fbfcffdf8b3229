"""What was learnt of a dataset without being charged: runs without privacy, records declared public.

The ledger cannot count these, so it is kept that they were: what such a run told (settings that work,
losses) may have gone into later runs that are charged.
"""

from __future__ import annotations

import json
import sqlite3

from appliance.core.db import reading, transaction
from appliance.core.errors import NotAllowed, PrivacyRefused
from appliance.core.events import now
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.people import guard, orders

OPEN, PUBLIC = "open", "public"
_AGREED = {
    OPEN: ("train.open", "records without privacy"),
    PUBLIC: ("data.public", "records declared public"),
}


def note(home: Home, dataset: str, *, job: str, kind: str, who: str) -> None:
    """Write down, once a job, that `job` learns from `dataset` uncharged; `kind` is OPEN or PUBLIC.

    Raises:
        NotAllowed: two people of this site did not agree that this job does so.
    """
    with transaction(home) as link:
        _check_agreed(link, home, job, kind, who)
        new = link.execute(
            "INSERT OR IGNORE INTO uncharged (dataset, job, kind, who, created) VALUES (?, ?, ?, ?, ?)",
            (dataset, job, kind, who, now()),
        ).rowcount
        if new:
            audit.record(link, who=who, what=f"dataset.{kind}", target=dataset, job=job)


def _check_agreed(link: sqlite3.Connection, home: Home, job: str, kind: str, who: str) -> None:
    if job.startswith("route "):  # learns which model to ask, from records that measure and never train
        guard.spend(link, home, who, "route.change", job.removeprefix("route "))
        return
    action, words = _AGREED[kind]
    if not orders.granted(link, home, action, job):
        raise NotAllowed(
            f"Two people did not agree that job {job} learns from {words}.",
            "Start it with `cloister train` or `cloister search`, which asks them.",
        )


def jobs_of(home: Home, dataset: str, kind: str) -> list[str]:
    """The jobs of this kind that learnt from `dataset`, oldest first; then those that only the log has."""
    with reading(home) as link:
        rows = link.execute(
            "SELECT job FROM uncharged WHERE dataset = ? AND kind = ? ORDER BY created, job", (dataset, kind)
        )
        found = [row["job"] for row in rows]
        logged = link.execute(
            "SELECT json_extract(entry, '$.job') FROM audit WHERE instr(entry, ?) AND instr(entry, ?)"
            " AND json_extract(entry, '$.target') = ? ORDER BY seq",
            (f'"what":"dataset.{kind}"', json.dumps(dataset), dataset),
        )
        return list(dict.fromkeys([*found, *(str(row[0]) for row in logged)]))


def check_private(home: Home, dataset: str) -> None:
    """Check that the records of `dataset` were never declared public.

    Raises:
        PrivacyRefused: they were, so what was learnt of them uncharged would be missing from epsilon.
    """
    declared = jobs_of(home, dataset, PUBLIC)
    if declared:
        raise PrivacyRefused(
            f"{dataset} was declared public (job {declared[0]}): nobody in it can be protected any more.",
            "Train on it with --no-privacy, or privately on other records.",
        )
