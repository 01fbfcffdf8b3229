"""The text of the people screen. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def cells(one: Mapping[str, Any], fingerprint: str) -> tuple[str, ...]:
    """One row: name, role, key, state."""
    return (str(one["name"]), str(one["role"]), fingerprint, state(one))


def state(one: Mapping[str, Any]) -> str:
    """Since when a person is here, or why they cannot sign in."""
    if one["removed"]:
        return f"removed {one['removed'][:10]}"
    if one.get("locked_until") and one["failed"]:
        return f"locked until {one['locked_until'][:16].replace('T', ' ')}"
    return f"since {one['since'][:10]}"


def emergencies_text(told: Mapping[str, Any]) -> str:
    """The emergencies, those that nobody reviewed first, and who checks whom."""
    lines = []
    for case in told["emergencies"]:
        mark = "" if case["state"] == "reviewed" else "RED: "
        end = f"reviewed by {case['reviewed_by']}" if case["state"] == "reviewed" else case["state"]
        lines.append(f"{mark}{case['at'][:16].replace('T', ' ')} {case['person']}, {end}: {case['reason']}")
    said = str(told["statement"])
    return "\n".join([*(lines or ["None."]), f"{said[:1].upper()}{said[1:]}."])


def why_not(action: str, told: Mapping[str, Any] | None, person: Mapping[str, Any] | None) -> str | None:
    """Why something cannot be done on this screen now, whoever asks."""
    if action not in ("add", "role", "remove", "reset", "passphrase", "emergency", "review"):
        return None
    if told is None or not told["people"]:
        return "one person runs this site; give it people: cloister init"
    if action in ("role", "remove", "reset"):
        if person is None:
            return "nobody is chosen"
        if person["removed"]:
            return f"{person['name']} was removed"
    if action == "review" and all(case["state"] == "reviewed" for case in told["emergencies"]):
        return "no emergency waits for a review"
    return None
