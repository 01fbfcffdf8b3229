"""The part of the door (session.py) that checks what is installed. Plain values in and out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.core.db import transaction
from tui.session_guard import acts, anyone

if TYPE_CHECKING:
    from tui.session import Session


@acts("supply.check")
def check(session: Session) -> dict[str, Any]:
    """Hash everything that is installed: intact, findings (what, path, package, why), files, size, seconds.

    `recorded`: "same", "changed" or "none", as against what was recorded. What is altered is audited.
    """
    from appliance.security.supply import baseline, installed

    return _told(session, installed.check(), *baseline.compare(session.home))


@acts("supply.record")
def record(session: Session) -> dict[str, Any]:
    """Keep what is installed now as what later checks compare with.

    Raises:
        InstallationAltered: it is not what its packages brought.
    """
    from appliance.security.supply import baseline

    return {"digest": baseline.record(session.home, who=session.who)}


@anyone
def sbom() -> bytes:
    """The list of what is installed, CycloneDX 1.6 JSON; with the wheels' hashes if a lock was left."""
    import sys

    from appliance.security.supply import installed, sbom, wheelhouse

    lock = Path(sys.prefix) / wheelhouse.LOCK
    known = dict(wheelhouse.read_lock(lock.read_text("ascii"))) if lock.is_file() else {}
    place = installed.here()
    profile = "site" if (place / "torch").is_dir() else "edge"
    return sbom.as_bytes(sbom.bom(sbom.of_installed(place, known), profile=profile))


def _told(session: Session, checked: Any, state: str, more: list[Any]) -> dict[str, Any]:
    from appliance.security.supply.baseline import note

    findings = [*checked.findings, *more]
    if findings:
        with transaction(session.home) as link:
            note(link, who=session.who, place=checked.place, findings=findings)
    return {
        "intact": not findings,
        "findings": [asdict(one) for one in findings],
        "recorded": state,
        "place": checked.place,
        "packages": checked.packages,
        "files": checked.files,
        "size": checked.size,
        "seconds": round(checked.seconds, 3),
        "editable": list(checked.editable),
        "unproven": checked.unproven,
        "sealed": checked.sealed,
    }
