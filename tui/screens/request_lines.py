"""The text of what two people are asked. Pure."""

from __future__ import annotations

from appliance.security.people.roles import needed
from appliance.security.people.rows import Asked


def cells(asked: Asked) -> tuple[str, ...]:
    """One row: id, what, target, asked by, agreed, state."""
    request = asked.request
    target = str(request["target"])
    return (
        asked.id,
        str(request["action"]),
        target if len(target) <= 18 else target[:16] + "..",
        str(request["asker"]),
        ", ".join(asked.agreed) or "-",
        asked.state,
    )


def asked_text(asked: Asked) -> str:
    """All that an approver signs, and how it stands."""
    request = asked.request
    lines = [f"{request['action']}  {request['target']}: {asked.state}", ""]
    lines += [f"{name}: {value}" for name, value in request["content"].items()]
    lines += [
        f"digest: {request['digest']}",
        "",
        f"asked by {request['asker']}, {_minute(request['asked'])} UTC",
        f"until {_minute(request['expires'])} UTC",
        f"agreed: {', '.join(asked.agreed) or 'nobody yet'}",
    ]
    if asked.refused:
        lines.append(f"refused by {', '.join(asked.refused)}")
    if asked.state == "pending":
        lines += ["", f"It needs {needed(request['action'])}."]
    if asked.used_for:
        lines.append(f"used for {asked.used_for}")
    return "\n".join(lines)


def outcome(asked: Asked) -> str:
    """What came of an answer, in a line or two."""
    request = asked.request
    what = f"Request {asked.id}: {request['action']} {request['target']}"
    if asked.state == "approved":
        return f"{what} is agreed to. {request['asker']} can do it now, once, within its time."
    if asked.state == "refused":
        return f"{what} is refused. That ends it."
    if asked.state == "used":
        return f"{what} is done."
    return f"{what} waits for {needed(request['action'])}."


def why_not_answer(asked: Asked | None, who: str) -> str | None:
    """Why this person cannot answer a request now; None when they can try."""
    if asked is None:
        return "nobody is asked anything"
    if asked.state != "pending":
        return f"request {asked.id} is {asked.state}"
    if who in asked.agreed:
        return f"{who} has agreed to {asked.id} already"
    return None


def _minute(stamp: object) -> str:
    return str(stamp)[:16].replace("T", " ")
