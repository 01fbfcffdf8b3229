"""The part of the door (session.py) for data sets: a look at a file before its import, and removal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.data.job import Plan, plan_from
from appliance.data.peek import Peek, peek
from appliance.ops import data_removal
from appliance.ops.data_removal import DataRemoval
from tui.session_guard import acts, agree

if TYPE_CHECKING:
    from tui.session import Session


@acts("data.import")
def look_at(session: Session, path: Path) -> Peek:
    """The columns of the first file at `path`, and what each seems to be; see appliance/data/peek.py."""
    return peek(path)


@acts("data.import")
def check_import(session: Session, spec: dict[str, Any]) -> Plan:
    """What `start_import` would be asked to do. Raises ConfigWrong; starts nothing."""
    return plan_from(spec)


@acts("site.read")
def plan_removal(session: Session, name: str) -> DataRemoval:
    """What would go with a dataset, if nothing uses it; raises as appliance/ops/data_removal.py does."""
    return data_removal.plan(session.home, name)


@acts("data.delete")
def remove(session: Session, name: str) -> DataRemoval:
    """Remove the records of a dataset, once two people have agreed."""
    agree(session, data_removal.ACTION, name, data_removal.shown(data_removal.plan(session.home, name)))
    return data_removal.remove(session.home, name, who=session.who)
