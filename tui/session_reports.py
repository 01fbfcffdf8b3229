"""The part of the door (session.py) that reads evaluation reports and writes their page out. Plain values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from appliance.core.errors import NotFound
from appliance.core.reading import read_bytes, size_of
from tui.session import Session
from tui.session_guard import acts
from tui.writing import new_path, write_out

_LARGEST = 50_000_000  # bytes


@acts("report.read")
def report(session: Session, name: str) -> dict[str, Any]:
    """A whole evaluation report (appliance/evaluate/report.py) and `about`, the model that was asked for.

    `name`: a model, for the newest report on it (one on all test records before one on a part), or the job
    that made the report.

    Raises:
        NotFound: no such report, or its file is gone or no report.
    """
    row = _row(session, name)
    path = Path(row["path"]).with_suffix(".json")
    try:
        if size_of(path) > _LARGEST:
            raise ValueError
        found: dict[str, Any] = json.loads(read_bytes(path))
        names = [one["name"] for one in found["models"]]
        if not names or "rule" not in found:  # one that came with a bundle tells of its gate alone
            found = {"rule": None, "training": [], "limits": [], **found}
    except (OSError, ValueError, KeyError, TypeError):
        raise NotFound(
            f"The report of {row['model']} cannot be read.", f"Measure it again: cloister evaluate {name}"
        ) from None
    return found | {"about": row["model"]}


@acts("report.export")
def export_page(session: Session, name: str, path: Path) -> Path:
    """Write the page of a report (see `report`) to the new file `path`: styles and plots are inside.

    Raises:
        NotFound: no such report, or it has no page here. ConfigWrong: the file is there, or cannot be.
    """
    row, path = _row(session, name), new_path(path)
    try:
        page = read_bytes(Path(row["path"]).with_suffix(".html"))
    except OSError:
        raise NotFound(
            f"The report of {row['model']} has no page here.",
            "A report that came with a bundle has its page where it was made.",
        ) from None
    told = {"target": row["model"], "job": str(row["job"]), "dataset": row["dataset"]}
    return write_out(session.home, path, page, who=session.who, **told)


def _row(session: Session, name: str) -> dict[str, Any]:
    """The row of `reports` that `name` means."""
    rows = session.reports()
    whole_first = sorted(rows, key=lambda row: bool(row["partial"]))
    found = next((row for row in whole_first if row["model"] == name), None)
    found = found or next((row for row in rows if str(row["job"]) == name), None)
    if found is None:
        raise NotFound(f"There is no report on {name}.", "Make one: cloister evaluate MODEL")
    return found
