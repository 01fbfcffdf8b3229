"""The part of the door (session.py) for the time: what is known of it, and its repair by two people."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from appliance.core.db import reading
from appliance.core.errors import ConfigWrong
from tui.session_guard import acts, agree

if TYPE_CHECKING:
    from tui.session import Session

_DIFFER = 2 * 86_400
"""Seconds that a time that is to be believed may differ from the machine's own: approvals take a day."""


@acts("site.read")
def status(session: Session) -> dict[str, Any]:
    """The machine's time, the floor below which it is not believed, and how the two stand to each other."""
    from appliance.security.trust import clock

    with reading(session.home) as link:
        found = clock.state(link, int(time.time()))
    return {
        "state": found.state,
        "why": found.why,
        "machine": _text(found.machine),
        "floor": _text(found.floor),
        "vouched": _text(found.vouched) if found.vouched else None,
    }


@acts("clock.repair")
def repair(session: Session, moment: datetime, because: str) -> dict[str, Any]:
    """Take `moment` (UTC) as the time from now on, once two people have agreed to it.

    Raises:
        ConfigWrong: the machine's own clock says something else, or there is no reason.
        NeedsApproval: they have not agreed yet. TrustRefused: as clock.repair.
    """
    from appliance.security.trust import clock

    seconds = int(moment.timestamp())
    if abs(seconds - time.time()) > _DIFFER:
        raise ConfigWrong(
            f"This machine's own clock says {_text(int(time.time()))}, not {_text(seconds)}.",
            "Set the machine's clock right first (timedatectl set-time), then repair.",
        )
    agree(session, clock.REPAIR, clock.TARGET, clock.repair_content(seconds, because))
    clock.repair(session.home, seconds, who=session.who, because=because)
    return status(session) | {"repaired": True}


def _text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
