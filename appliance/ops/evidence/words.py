"""A report as text of 80 columns for people; it says no more than the signed report does."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from appliance.ops.evidence.report import totals
from appliance.ops.evidence.rows import LAWS
from appliance.ops.evidence.shape import FAILED, LACKS, SUPPORTS

WIDTH = 79
LIMIT = (
    "This report says what was found here when it was written, and that this supports a clause or does not."
    " It is no legal opinion, and no word that a law is kept: the organisation and its counsel judge that."
    " Clause names are short forms; read the law."
)
_CLAUSE, _TITLE = 25, 34
_MANY = {SUPPORTS: "support", LACKS: "do not support"}


def as_text(report: Mapping[str, Any]) -> str:
    """All of it: head, a table of rows for each law, then each probe with what it found."""
    lines = [*head(report), ""]
    for law in dict.fromkeys(row["law"] for row in report["rows"]):
        lines += [LAWS.get(law, law), "-" * WIDTH]
        for row in report["rows"]:
            if row["law"] == law:
                lines += _row(row)
        lines.append("")
    lines += ["What the probes found", "-" * WIDTH]
    for name in _named(report):
        lines += _probe(name, report["probes"][name])
    return "\n".join([*lines, *tail(report), ""])


def head(report: Mapping[str, Any]) -> list[str]:
    """Whose report it is, how the site is run, what the report is not."""
    created = report["created"][:16].replace("T", " ")
    site = report["site"].partition("/")[2]
    title = f"Evidence report of {site}"[: WIDTH - 24]
    kept = report["people"]
    mode = f"{kept[0].upper()}{kept[1:]}."
    lines = [f"{title:<{WIDTH - 20}}{created} UTC", ""]
    if report["mode"] == "single-person":
        mode = mode.replace("Single-person mode", "SINGLE-PERSON MODE", 1)
    lines += _wrapped(mode)
    lines += ["", *_wrapped(LIMIT), ""]
    given = totals(report["rows"]).items()
    counts = ", ".join(f"{number} {_MANY.get(outcome, outcome)}" for outcome, number in given if number)
    only = f" ({LAWS.get(report['only'], report['only'])} alone)" if report["only"] else ""
    lines += _wrapped(f"{len(report['rows'])} rows{only}: {counts}.")
    return lines


def tail(report: Mapping[str, Any]) -> list[str]:
    """What it is signed with, and how others check it."""
    note = report["audit"]["checkpoint"].split("\n")
    return [
        "",
        "Signed",
        "-" * WIDTH,
        *_wrapped(
            f"by the key of {report['site']}, written by {report['who']}, cloister {report['version']}"
        ),
        f"key      {report['key']}",
        *_wrapped(report["words"], "words    "),
        *_wrapped(
            f"audit log entry {report['audit']['entry']} has the hash of all results; the log then had"
            f" {note[1]} entries, root {note[2]}"
        ),
        "check it anywhere with: cloister evidence verify FILE.json --key KEY",
    ]


def worst(report: Mapping[str, Any]) -> list[str]:
    """What does not support or could not be run, each probe once."""
    lines: list[str] = []
    for name in _named(report):
        one = report["probes"][name]
        if one["outcome"] in (LACKS, FAILED):
            lines += _probe(name, one)
    return lines


def _named(report: Mapping[str, Any]) -> list[str]:
    """The probes in the order of the rows that name them."""
    return list(dict.fromkeys(name for row in report["rows"] for name in row["probes"]))


def _row(row: Mapping[str, Any]) -> list[str]:
    clause = textwrap.wrap(row["clause"], _CLAUSE - 1) or [""]
    first = f"{clause[0]:<{_CLAUSE}}{row['title'][: _TITLE - 1]:<{_TITLE}}{row['outcome']}"
    by = f" [{', '.join(row['probes'])}]" if row["probes"] else ""
    rest = clause[1:]
    needs = "needs " if row["probes"] else ""
    return [first, *rest, *_wrapped(f"{needs}{row['says']}{by}", "    ")]


def _probe(name: str, one: Mapping[str, Any]) -> list[str]:
    at = one["at"][:19].replace("T", " ")
    return [
        f"{name}: {one['outcome']}"[: WIDTH - 24].ljust(WIDTH - 23) + f"{at} UTC",
        *_wrapped(one["found"], "    "),
    ]


def _wrapped(text: str, first: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False
    )
