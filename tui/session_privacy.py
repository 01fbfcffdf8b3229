"""The part of the door (session.py) about privacy: charges, attack tests, and their report. Plain values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appliance.core.errors import NotFound
from appliance.core.reading import read_bytes
from appliance.models.registry import Model
from tui.session import Session
from tui.session_guard import acts, anyone
from tui.writing import new_path, write_out

_WIDTH = 100  # of the report


@acts("site.read", site=True)
def charges(session: Session, dataset: str) -> list[dict[str, Any]]:
    """What each run was charged on a dataset, oldest first, and `epsilon_after`: of all up to it.

    Raises:
        NotFound: it has no budget.
    """
    from appliance.privacy import ledger
    from appliance.privacy.accountant import Steps, epsilon

    budget = ledger.budget(session.home, dataset)
    if budget is None:
        raise NotFound(f"{dataset} has no privacy budget yet.", "Its first private training gives it one.")
    events = ledger.events(session.home, dataset)
    names = ("noise_multiplier", "sample_rate", "draws", "steps")
    history = [Steps(**{name: event[name] for name in names}) for event in events]
    return [
        event | {"epsilon_after": epsilon(history[: number + 1], budget.delta)}
        for number, event in enumerate(events)
    ]


@acts("report.read", site=True)
def privacy_audit(session: Session, model: str) -> dict[str, Any] | None:
    """The newest audit (appliance/ops/privacy_audit.py) that says something of a model, if one does."""
    made = session.privacy_audits(model)
    return dict(json.loads(read_bytes(Path(made[0]["path"])))) if made else None


@anyone
def newest_trained(models: Sequence[Model], dataset: str) -> str | None:
    """The newest model that learnt from any version of a dataset; files made from one are not meant."""
    learnt = [one for one in models if one.trained and (one.dataset or "").partition("@")[0] == dataset]
    return max(learnt, key=lambda one: one.created).name if learnt else None


@acts("report.export", site=True)
def export_privacy(session: Session, dataset: str, path: Path) -> Path:
    """Write what a dataset's budget was spent on, and the newest attack tests, as text to a new file.

    Raises:
        NotFound: the dataset has no budget. ConfigWrong: the file is there, or cannot be.
    """
    from tui.cli.privacy_lines import page_lines

    path, found = new_path(path), charges(session, dataset)
    row = next(one for one in session.budgets() if one["name"] == dataset)
    model = newest_trained(session.models(), dataset)
    tested = privacy_audit(session, model) if model else None
    lines = page_lines(row, found, model, tested, _WIDTH)
    return write_out(session.home, path, "\n".join([*lines, ""]).encode(), who=session.who, target=dataset)
