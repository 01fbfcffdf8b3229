"""The part of the door (session.py) through which running jobs are measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.ops.meters import Meter
from tui.session_guard import acts

if TYPE_CHECKING:
    from tui.session import Session


@acts("site.read")
def meter(session: Session, job_id: str) -> Meter:
    """What reads the processors and memory that a job uses."""
    return Meter(session.home, job_id)
