"""Which models passed their gate: the newest report on the whole test split, as the audit log tells it.

The rows of reports alone grant nothing: they can be edited, and an older pass would outlive a newer failure.
A report that came with a bundle is one that was made elsewhere; its signed manifest says how it ended, and
the log which bundle came in, and what was made of it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from appliance.core.db import reading
from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.security.log.entries import told_ever

MEASURED = "model.evaluate"
_KINDS = (MEASURED, "bundle.enter", "model.add", "model.remove")
_HEAD = 100  # bytes of signer, signature and length before the manifest: docs/bundle-format.md


def verdicts(home: Home) -> dict[str, bool]:
    """By model that has a whole report: whether the newest one passed, by the log and by its row."""
    with reading(home) as link:
        rows = link.execute("SELECT model, job, passed FROM reports WHERE partial = 0").fetchall()
        files = {row["name"]: row["sha256"] for row in link.execute("SELECT name, sha256 FROM models")}
        told = told_ever(home, *_KINDS, link=link)
    there = {(row["model"], row["job"]): bool(row["passed"]) for row in rows}
    newest: dict[str, tuple[str, bool]] = {}
    for entry in told:
        match entry["what"]:
            case "model.evaluate" if not entry["partial"]:
                newest[entry["target"]] = entry["job"], entry["passed"] is True
            case "bundle.enter":
                _brought(home, entry, there, newest)
            case "model.remove":  # a later model of the name is another
                newest.pop(entry["target"], None)
    added = {entry["target"]: entry["sha256"] for entry in told if entry["what"] == "model.add"}
    return {
        name: name in newest
        and newest[name][1]
        and there.get((name, newest[name][0]), False)
        and added.get(name, files.get(name)) == files.get(name)
        for name in {row["model"] for row in rows} | newest.keys()
    }


def report_of(digest: str) -> str:
    """What stands in the place of a job's name where a report came with a bundle."""
    return f"bundle-{digest[:12]}"


def _brought(
    home: Home, entry: dict[str, Any], there: dict[tuple[str, str], bool], newest: dict[str, tuple[str, bool]]
) -> None:
    """A bundle of before the report that it brought had an entry of its own."""
    model, job = entry["name"], report_of(entry["target"])
    if (model, job) in there and newest.get(model, ("", False))[0] != job:
        newest[model] = job, _stated(home, entry["target"])


def _stated(home: Home, digest: str) -> bool:
    """Whether the manifest with this hash says that its model passed."""
    try:
        content = read_bytes(home.bundles / digest / ".signed")[_HEAD:]
        same = hashlib.sha256(content).hexdigest() == digest
        return same and (json.loads(content)["eval"] or {}).get("gate") == "PASS"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
