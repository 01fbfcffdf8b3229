"""Runs the probes and makes a report of them: plain values, nothing signed or written yet.

Each probe runs once, however many rows it backs. One that throws is "could not be run", never a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from appliance.core.errors import ApplianceError
from appliance.ops.evidence.rows import PROBES, chosen
from appliance.ops.evidence.shape import FAILED, LACKS, OUTCOMES, Found, Look, Probe, Row, together

Told = Callable[[int, int, str], None]
"""Called before each probe: its number, how many there are, its name."""


def examine(
    look: Look,
    law: str | None = None,
    *,
    told: Told = lambda at, of, name: None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    probes: Mapping[str, Probe] = PROBES,
) -> dict[str, Any]:
    """Run what the rows of `law` (else all) need; `rows` and `probes`, in canonical JSON's values."""
    rows = chosen(law)
    names = list(dict.fromkeys(name for row in rows for name in row.probes))
    found = {}
    for at, name in enumerate(names, start=1):
        told(at, len(names), name)
        found[name] = _run(probes[name], look) | {"at": _time(clock())}
    return {"rows": [_row(row, found) for row in rows], "probes": found}


def totals(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many rows have each outcome."""
    given = [row["outcome"] for row in rows]
    return {outcome: given.count(outcome) for outcome in OUTCOMES}


def lacking(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The clauses that are not borne out: a probe says so, or could not be run."""
    return [f"{row['law']} {row['clause']}" for row in rows if row["outcome"] in (LACKS, FAILED)]


def _run(probe: Probe, look: Look) -> dict[str, Any]:
    try:
        found = probe(look)
    except ApplianceError as problem:
        found = Found(outcome=FAILED, text=f"{problem.message} {problem.hint}".strip())
    except ModuleNotFoundError as problem:
        found = Found(outcome=FAILED, text=f"It needs the site profile ({problem.name} is not installed).")
    except OSError as problem:
        found = Found(outcome=FAILED, text=f"{problem.strerror or problem}.")
    except Exception as problem:  # a message of another kind may quote what is not for a report
        found = Found(outcome=FAILED, text=f"The probe ended with {type(problem).__name__}.")
    return {"outcome": found.outcome, "found": found.text, "figures": dict(found.figures)}


def _row(row: Row, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "law": row.law,
        "clause": row.clause,
        "title": row.title,
        "says": row.says,
        "probes": list(row.probes),
        "outcome": together([str(found[name]["outcome"]) for name in row.probes]),
    }


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
