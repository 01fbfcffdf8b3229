"""The part of the door (session.py) to blind comparisons of two models. No word of a record is kept."""

from __future__ import annotations

from appliance.core.db import transaction
from appliance.data import store
from appliance.data.records import spoken
from appliance.evaluate import blind
from appliance.evaluate.blind import Comparison
from appliance.security import audit
from tui.session import Session
from tui.session_guard import acts


@acts("report.read")
def comparisons(session: Session) -> list[Comparison]:
    """All blind comparisons, newest first."""
    return blind.kept(session.home)


@acts("report.read")
def comparison(session: Session, number: str) -> Comparison:
    """One of them.

    Raises:
        NotFound: there is none.
    """
    return blind.get(session.home, number)


@acts("evaluate.start")
def begin(session: Session, *, dataset: str, split: str, models: tuple[str, str], pairs: int) -> Comparison:
    """A new comparison on records drawn from a split.

    Raises:
        NotFound: no such dataset. ConfigWrong: one model twice, or no records.
    """
    found = store.get(session.home, dataset)
    rows = len(store.read(found, split))
    made = blind.begun(
        session.home, who=session.who, dataset=found.title, split=split, models=models, rows=rows, pairs=pairs
    )
    _log(session, "blind.begin", made)
    return made


@acts("record.read")
def question(session: Session, one: Comparison) -> str:
    """What both models are asked next.

    Raises:
        NotFound, DataRejected: the dataset is gone or was changed.
    """
    name, _, version = one.dataset.partition("@")
    rows = store.read(store.get(session.home, name, int(version)), one.split)
    return spoken(rows[one.records[len(one.choices)]].text)


@acts("evaluate.start")
def choose(session: Session, one: Comparison, choice: str) -> Comparison:
    """With the next pair judged: a, b, tie, or same; the last one is written to the audit log."""
    made = blind.chosen(session.home, one, choice)
    if made.done:
        _log(session, "blind.end", made, **blind.result(made)["counts"])
    return made


def _log(session: Session, what: str, one: Comparison, **counts: int) -> None:
    with transaction(session.home) as link:
        told = {"models": list(one.models), "dataset": one.dataset, "pairs": len(one.records)}
        audit.record(link, who=session.who, what=what, target=one.id, **told, counts=counts)
