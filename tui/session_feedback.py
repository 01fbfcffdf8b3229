"""The door's part for feedback: listed, read, judged, written out for the next dataset version."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appliance.core.errors import ConfigWrong
from appliance.core.reading import read_bytes
from appliance.serve import review
from appliance.serve.review import Exported, Feedback, Words
from tui.session import Session
from tui.session_guard import acts, agree


@acts("site.read")
def list_feedback(session: Session, state: str | None = None) -> list[Feedback]:
    """All feedback, or that which is new, accepted or rejected, oldest first."""
    return review.list_feedback(session.home, state)


@acts("record.read")
def read_feedback(session: Session, feedback_id: str) -> tuple[Feedback, Words]:
    """One feedback and its words, which are record text."""
    return review.read_feedback(session.home, feedback_id)


@acts("feedback.review")
def judge(session: Session, ids: Sequence[str], *, accept: bool) -> None:
    """Accept or reject feedback; nothing changes when one of the ids is unknown."""
    review.set_state(session.home, ids, "accepted" if accept else "rejected", session.who)


@acts("feedback.export")
def export(
    session: Session,
    path: Path,
    *,
    kind: str | None = None,
    model: str | None = None,
    like: str | None = None,
) -> Exported:
    """Write accepted feedback as records; `like` names a dataset whose kind and columns they take.

    Raises:
        ConfigWrong: as `review.export_records`, or `like` was not read from files.
        NotFound: there is no such dataset. DataRejected: nothing to write.
    """
    columns: dict[str, Any] = {}
    if like is not None:
        dataset = session.dataset(like)
        asked = session.job(dataset.job).folder / "spec.json"
        if asked.exists():
            columns = json.loads(read_bytes(asked))["spec"].get("columns") or {}
        if not columns:
            raise ConfigWrong(
                f"{dataset.title} does not say which columns its files had.",
                "Leave --like out, and name --as instead.",
            )
        if kind not in (None, dataset.task):
            raise ConfigWrong(f"{dataset.title} holds {dataset.task} records.", "Leave --as or --like out.")
        kind = dataset.task
    wanted: dict[str, Any] = {"kind": kind, "model": model, "columns": columns}
    content = review.export_content(session.home, path.absolute(), **wanted)
    agree(session, "feedback.export", path.name, content)
    return review.export_records(session.home, path.absolute(), session.who, **wanted)
