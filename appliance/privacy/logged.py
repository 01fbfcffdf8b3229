"""What the audit log tells of budgets and charges; the ledger's rows are held against it, one by one.

Every charge has an entry with the number of its row and all that epsilon follows from, so a row that was
taken out, changed or put in is seen, be it a single step. Entries of older versions (without `charge`) tell
of a job's steps at powers of two only: of those charges up to a half could be taken out unseen.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from appliance.core.db import reading
from appliance.core.errors import PrivacyRefused
from appliance.core.home import Home
from appliance.security.log.entries import told, told_ever

OPENED, LIMITED, CHARGED = "budget.open", "budget.set", "ledger.charge"
_ROW = ("dataset", "job", "steps", "noise_multiplier", "sample_rate", "draws")


@dataclass(frozen=True, kw_only=True)
class Agreed:
    """What the log says that a dataset's budget is; None where it does not say."""

    epsilon_limit: float | None = None
    delta: float | None = None
    unit: str | None = None


def number(value: float) -> str:
    """A figure as an entry has it: short, and exactly this figure."""
    return short if float(short := f"{value:g}") == value else repr(value)


def charge(
    row: int, *, job: str, total: int, steps: int, noise: float, rate: float, draws: int
) -> dict[str, Any]:
    """What the entry of one charge holds: the ledger's row, its `taken` steps, the job's `steps` so far."""
    return {
        "charge": row,
        "job": job,
        "steps": total,
        "taken": steps,
        "noise_multiplier": str(noise),
        "sample_rate": str(rate),
        "draws": draws,
    }


def agreed(home: Home, dataset: str, *, link: sqlite3.Connection | None = None) -> Agreed:
    """What was agreed to for a dataset's budget, by the newest entries."""
    held: dict[str, Any] = {}
    for entry in told_ever(home, OPENED, LIMITED, link=link):
        if entry["target"] == dataset:
            held |= {name: entry[name] for name in ("epsilon_limit", "delta", "unit") if name in entry}
    figures = {name: float(held[name]) for name in ("epsilon_limit", "delta") if name in held}
    return Agreed(**figures, unit=held.get("unit"))


def check_agreed(home: Home, dataset: str, *, link: sqlite3.Connection | None = None) -> None:
    """Check that a dataset's budget, or that it has none, is what the log says.

    Raises:
        PrivacyRefused: it was changed by other means.
    """
    if link is None:
        with reading(home) as own:
            check_agreed(home, dataset, link=own)
        return
    row = link.execute("SELECT * FROM budgets WHERE dataset = ?", (dataset,)).fetchone()
    said = agreed(home, dataset, link=link)
    restore = "Restore the database from its backup, and see who can write to it."
    if row is None:
        if said != Agreed():
            raise PrivacyRefused(f"The budget of {dataset}, of which the audit log tells, is gone.", restore)
        return
    limit = row["epsilon_limit"]
    if said.epsilon_limit not in (limit, float(f"{limit:g}")):
        words = "says nothing of it" if said.epsilon_limit is None else f"says {number(said.epsilon_limit)}"
        raise PrivacyRefused(
            f"The limit of {dataset} is {number(limit)}, and the audit log {words}.",
            f"Set it anew: cloister budget set {dataset} --epsilon N. And see who can write to the database.",
        )
    delta = said.delta in (None, row["delta"], float(f"{row['delta']:.3g}"))  # so older versions rounded it
    if not delta or said.unit not in (None, row["unit"]):
        raise PrivacyRefused(
            f"The budget of {dataset} protects one {row['unit']} at delta {number(row['delta'])}; by the"
            f" audit log it is one {said.unit} at delta {number(said.delta or 0.0)}.",
            restore,
        )


def changed(home: Home) -> list[str]:
    """What is not as agreed to, in a few words for each dataset."""
    with reading(home) as link:
        names = {row["dataset"] for row in link.execute("SELECT dataset FROM budgets")}
        names |= {entry["target"] for entry in told_ever(home, OPENED, link=link)}
    found = []
    for name in sorted(names):
        try:
            check_agreed(home, name)
        except PrivacyRefused as problem:
            found.append(problem.message.rstrip("."))
    return found


def lost(home: Home) -> list[str]:
    """The datasets whose ledger lacks a charge that the log tells of, or has it with other figures."""
    with reading(home) as link:
        return _lost(home, link)


def unknown(home: Home) -> list[str]:
    """The datasets whose ledger has charges of which the log does not tell, though it tells of older ones."""
    with reading(home) as link:
        known = {entry["charge"] for entry in told(home, CHARGED, link=link) if "charge" in entry}
        first = min(known, default=None)
        rows = link.execute("SELECT seq, dataset FROM ledger WHERE seq >= ?", (first,)).fetchall()
    return sorted({row["dataset"] for row in rows if row["seq"] not in known})


def check_whole(home: Home, dataset: str) -> None:
    """Check that budget and ledger of a dataset are what was agreed to and what was charged.

    Raises:
        PrivacyRefused: they are not, by the audit log.
    """
    check_agreed(home, dataset)
    restore = "Restore the backup of the home folder: what was spent is not known."
    if dataset in lost(home):
        raise PrivacyRefused(
            f"The ledger of {dataset} has lost charges that the audit log tells of.", restore
        )
    if dataset in unknown(home):
        raise PrivacyRefused(
            f"The ledger of {dataset} has charges of which the audit log does not tell.", restore
        )


def _lost(home: Home, link: sqlite3.Connection) -> list[str]:
    rows = {row["seq"]: tuple(row[name] for name in _ROW) for row in link.execute("SELECT * FROM ledger")}
    sums: dict[tuple[str, str], int] = {}
    for dataset, job, steps, *_ in rows.values():
        sums[dataset, job] = sums.get((dataset, job), 0) + steps
    return sorted(
        {
            entry["target"]
            for entry in told_ever(home, CHARGED, link=link)
            if (
                rows.get(entry["charge"]) != _row(entry)
                if "charge" in entry
                else sums.get((entry["target"], entry["job"]), 0) < entry["steps"]
            )
        }
    )


def _row(entry: dict[str, Any]) -> tuple[Any, ...]:
    """The row that an entry tells of, its columns in the order of `_ROW`."""
    figures = (float(entry["noise_multiplier"]), float(entry["sample_rate"]), entry["draws"])
    return (entry["target"], entry["job"], entry["taken"], *figures)
