"""One look at the site through the door, as plain values for the screens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.core.profile import has_site
from appliance.core.reading import read_bytes, size_of
from appliance.core.sealing import Locked
from appliance.data.store import Dataset
from appliance.models.registry import Model
from appliance.ops.jobs import JobView
from appliance.serve.review import Feedback
from tui.screens.story import clock, length, seconds
from tui.session import Session
from tui.session_feedback import list_feedback
from tui.steps import NextStep, next_step

LIVE = ("running", "waiting")
_LARGEST_REPORT = 20_000_000  # bytes


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """A job as lists show it. `share` is 0 to 1; `time` is how long it runs, or when it ended."""

    id: str
    kind: str
    title: str
    who: str
    state: str
    share: float | None
    time: str
    said: str

    @property
    def percent(self) -> str:
        """The share in words, where it says something."""
        return "-" if self.share is None else f"{self.share:.0%}"


@dataclass(frozen=True, kw_only=True)
class SiteView:
    """What is here and what to do next."""

    step: NextStep
    jobs: tuple[JobRow, ...]
    datasets: tuple[Dataset, ...]
    models: tuple[Model, ...]
    passed: dict[str, bool]
    accuracy: dict[str, float]
    budgets: tuple[str, ...]
    feedback: tuple[Feedback, ...] = ()
    people: str = ""


def look(session: Session, now: float, limit: int) -> SiteView:
    """Read the site; `now` is the time in seconds since 1970."""
    datasets, models = session.datasets(), session.models()
    jobs = session.jobs(limit)
    reports = [report for report in session.reports() if not report["partial"]]  # a quick look is no verdict
    return SiteView(
        step=next_step(datasets, models, jobs, reports, edge=not has_site()),
        jobs=tuple(row_of(job, now) for job in jobs),
        datasets=tuple(datasets),
        models=tuple(models),
        passed={report["model"]: bool(report["passed"]) for report in reversed(reports)},
        accuracy=accuracies(reports),
        budgets=tuple(session.budget_names()),
        feedback=tuple(list_feedback(session)),
        people=session.people(),
    )


def row_of(job: JobView, now: float) -> JobRow:
    """The list's view of a job."""
    last, end = job.last, job.end
    share = last["done"] / last["total"] if last.get("total") else None
    if job.state == "done":
        share = 1.0
    newest = job.events[-1].get("at", job.created) if job.events else job.created
    if job.state in LIVE:
        time = length(now - seconds(job.created))
    else:
        time = clock(newest, "%H:%M" if now - seconds(newest) < 86400 else "%d %b")
    said = str(end.get("message", "")) if job.state == "failed" else ""
    return JobRow(
        id=job.id,
        kind=job.kind,
        title=job.title,
        who=job.who,
        state=job.state,
        share=None if share is None or job.kind == "serve" else min(1.0, share),
        time=time,
        said=said,
    )


def accuracies(reports: list[dict[str, Any]]) -> dict[str, float]:
    """Accuracy by model from the report files; the newest report counts, an unreadable one has none."""
    found: dict[str, float] = {}
    for path in dict.fromkeys(report["path"] for report in reports):
        for model, accuracy in read_accuracies(Path(path)).items():
            found.setdefault(model, accuracy)
    return found


def read_accuracies(path: Path) -> dict[str, float]:
    """Model and accuracy of one report's JSON file."""
    try:
        path = path.with_suffix(".json")
        if size_of(path) > _LARGEST_REPORT:
            return {}
        rows = json.loads(read_bytes(path))["models"]
        return {row["name"]: float(row["accuracy"]) for row in rows if row.get("accuracy") is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, Locked):
        return {}
