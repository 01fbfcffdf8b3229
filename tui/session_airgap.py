"""The part of the door (session.py) that tests and sets the air gap. Plain values in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.core.db import transaction
from appliance.security import audit
from tui.session_guard import acts, agree, anyone

if TYPE_CHECKING:
    from tui.session import Session


@acts("airgap.check")
def check(session: Session) -> dict[str, Any]:
    """Try every way out in every jail, and without one; see appliance/security/airgap/selftest.py.

    tried, blocked, seen_open, passed, line, policy, landlock, files (whether the kernel holds jobs to the
    places where they may write), ways and left_out. It takes a few seconds.

    Raises:
        JailRefused: this machine cannot make a jail, or the test can see nothing.
    """
    from appliance.security.airgap.jail import holds_files
    from appliance.security.airgap.selftest import run

    found = run()
    told = found.as_dict()
    with transaction(session.home) as link:
        audit.record(
            link,
            who=session.who,
            what="airgap.check",
            target="jobs",
            **{name: told[name] for name in ("tried", "blocked", "seen_open", "passed")},
            open=[way["way"] for way in told["ways"] if way["result"] == "open"],
        )
    told |= {"line": found.line(), "policy": policy(session), "landlock": landlock()}
    return told | {"files": holds_files()}


@acts("site.read")
def policy(session: Session) -> str:
    """Whether jobs must run in the jail: "required" or "off"."""
    from appliance.security.airgap import policy as site

    return site.policy(session.home)


@acts("airgap.off")
def set_policy(session: Session, jail: str, because: str) -> str:
    """Say whether jobs must run in the jail; returns what now holds.

    Raises:
        ConfigWrong: no such policy, or none is given as the reason for "off".
    """
    from appliance.security.airgap import policy as site

    if jail == site.OFF:
        agree(session, "airgap.off", site.TARGET, site.shown(because))
    site.set_policy(session.home, jail, who=session.who, because=because)
    return site.policy(session.home)


@anyone
def landlock() -> int:
    """The version of Landlock that helps the jail on this kernel; 0 where seccomp stands alone."""
    from appliance.security.airgap import kernel
    from appliance.security.airgap.syscalls import this_machine

    machine = this_machine()
    found = kernel.landlock_version(machine) if machine else 0
    return found if found >= kernel.NETWORK_RULES else 0
