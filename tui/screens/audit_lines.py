"""The text of the audit screen. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tui.cli.tables import table_lines, wrapped

_FIRST = ("seq", "at", "who", "what", "target")
_NAMES = {"at": "when"}


def cells(entry: Mapping[str, Any], room: int) -> tuple[str, ...]:
    """One row: entry, when, who, what, target."""
    when = str(entry.get("at", ""))[:19].replace("T", " ")
    target = str(entry.get("target", ""))
    short = target if len(target) <= room else target[: max(1, room - 2)] + ".."
    return (f"#{entry['seq']}", when, str(entry.get("who", "")), str(entry.get("what", "")), short)


def entry_text(entry: Mapping[str, Any], width: int) -> str:
    """Every field of an entry, a line each, the ones that all have first."""
    names = [*_FIRST[1:], *(name for name in entry if name not in _FIRST)]
    lines = []
    for name in names:
        if name in entry:
            head = f"{_NAMES.get(name, name):<7} "
            lines += wrapped(_shown(entry[name]), head, width=max(20, width)) or [head]
    return "\n".join(lines)


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def people_text(told: Mapping[str, Any]) -> str:
    """Who is here, an emergency first."""
    red = [case for case in told["emergencies"] if case["state"] != "reviewed"]
    lines = [f"RED: {case['person']} as operator, {case['state']}" for case in red]
    lines += [f"{one['name']:<12} {one['role']}" for one in told["people"] if not one["removed"]]
    return "\n".join(lines or ["One person runs this site.", "Give it people: cloister init"])


def log_title(verdict: Mapping[str, Any] | None, at: str) -> str:
    """What the newest check of the log said, for the border."""
    if verdict is None:
        return "Log   not checked yet: press v"
    if not verdict["ok"]:
        return f"Log   DAMAGED, intact to {verdict['intact']}   checked {at}"
    return f"Log   OK to {verdict['intact']}   checked {at}"


def verdict_text(verdict: Mapping[str, Any]) -> str:
    """The result of a check in words."""
    parts = [f"The audit log is {verdict['text']}."]
    parts += [f"{damage['kind']}: {damage['text']}" for damage in verdict["damages"]]
    if not verdict["ok"]:
        parts += [f"{verdict['error']['message']}", f"{verdict['error']['hint']}"]
    if verdict["renewals"]:
        parts.append("What was set aside lies in damaged-logs of the home folder: keep it.")
    return "\n\n".join([*parts, verdict["limit"]])


def checkpoint_text(made: Mapping[str, Any]) -> str:
    """A signed state of the log."""
    return "\n".join(
        (
            f"log          {made['origin']}",
            f"entries      {made['size']}",
            f"time         {made['time'][:19].replace('T', ' ')} UTC",
            f"fingerprint  {made['fingerprint']}",
        )
    )


def witness_text(told: Mapping[str, Any]) -> str:
    """What a checkpoint that came back says."""
    if told["set_aside"]:
        return (
            f"It is of a log that was set aside on {told['set_aside']['at'][:10]}, whose first {told['size']}"
            f" entries are those that were signed.\n\n{checkpoint_text(told)}"
        )
    same = told["same_entries"]
    more = f"\nEntries {same[0]} to {same[1]} are the same as in the file." if same else ""
    return f"The log extends it: witnessed at {told['size']}.{more}\n\n{checkpoint_text(told)}"


def network_text(found: Mapping[str, Any], width: int) -> str:
    """The result of the network self-test: the verdict, then each way out."""
    rows = [(way["title"], way["control"], way["result"]) for way in found["ways"]]
    opened = [way["title"] for way in found["ways"] if way["result"] == "open"]
    head = (
        f"OPEN: {', '.join(opened)}. Stop all jobs, and have this machine looked at."
        if not found["passed"]
        else found["line"]
    )
    lines = wrapped(head, width=width)
    if found["policy"] == "off":
        lines += wrapped("WARNING: this site's policy lets jobs run without the jail.", width=width)
    if not found["files"]:
        lines += wrapped("LEFT OPEN: on this kernel a job can write wherever this account can.", width=width)
    lines += ["", *table_lines(("way out", "no jail", "in the jail"), rows, width=width)]
    return "\n".join(lines)


def evidence_text(made: Mapping[str, Any]) -> str:
    """What the evidence report found, and where it lies."""
    totals: Mapping[str, int] = made["totals"]
    lacking: Sequence[str] = made["lacking"]
    lines = [f"{count:>4}  {result}" for result, count in totals.items() if count]
    if lacking:
        lines += ["", "Not supported, or could not be tested:", *(f"  {clause}" for clause in lacking)]
    lines += ["", f"signed: {made['path']}", f"text:   {made['text_path']}", ""]
    return "\n".join([*lines, f"Audit log entry {made['audit']['entry']}. It is no legal opinion."])
