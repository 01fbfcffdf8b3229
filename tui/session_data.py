"""The part of the door (session.py) through which records are removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.ops import data_removal
from appliance.ops.data_removal import DataRemoval
from tui.session_guard import acts, agree

if TYPE_CHECKING:
    from tui.session import Session


@acts("site.read")
def plan_removal(session: Session, name: str) -> DataRemoval:
    """What would go with a dataset, if nothing uses it; raises as appliance/ops/data_removal.py does."""
    return data_removal.plan(session.home, name)


@acts("data.delete")
def remove(session: Session, name: str) -> DataRemoval:
    """Remove the records of a dataset, once two people have agreed."""
    agree(session, data_removal.ACTION, name, data_removal.shown(data_removal.plan(session.home, name)))
    return data_removal.remove(session.home, name, who=session.who)
