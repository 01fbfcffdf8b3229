"""What an ended job found, as the command that starts such a job says it; for `job tail` and `job resume`."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from appliance.core.errors import NotFound
from appliance.core.profile import has_site
from appliance.core.reading import read_bytes
from appliance.core.sealing import Locked
from appliance.ops.jobs import JobView
from tui.cli.audit_privacy import say_audit
from tui.cli.data import show_dataset
from tui.cli.face import Face
from tui.cli.quantize import say_files
from tui.cli.search import as_command, say_searched
from tui.cli.train import say_report, say_trained


def say_result(face: Face, job: JobView) -> str | None:
    """Say what a job that is done has found, and what to do next; returns that command.

    None, and nothing is said, where the job is not done. What it made may be gone by now, and its result
    may be of an earlier version: then as much is said as can be.
    """
    if job.state != "done":
        return None
    result = job.end.get("result")
    found = result if isinstance(result, dict) else {}
    say = _SAY.get(job.kind)
    if say is not None and found:
        with suppress(NotFound, KeyError, TypeError, ValueError):
            say(face, found)
    if job.kind == "serve":
        return None
    if job.kind == "search" and found.get("best") and not found.get("name"):
        command = as_command(found)
        face.say(f"Next: {command}")
        return command
    bases = [model for model in face.session.models() if model.kind == "base"]
    if job.kind == "import" and found.get("name") and bases and has_site():
        command = f"cloister train {found['name']}"
        face.say(f"Next: {command}")
        return command
    return face.next(_model_of(job, found))


def _model_of(job: JobView, result: dict[str, Any]) -> str | None:
    """The model that the job made or was about."""
    if job.kind in ("train", "search"):
        return result.get("name")
    with suppress(OSError, ValueError, KeyError, Locked):
        spec = json.loads(read_bytes(job.folder / "spec.json"))["spec"]
        names: list[str | None] = spec.get("models") or [spec.get("model")]
        return names[-1]
    return None


def _imported(face: Face, result: dict[str, Any]) -> None:
    show_dataset(face, f"{result['name']}@{result['version']}")


_SAY: dict[str, Callable[[Face, dict[str, Any]], None]] = {
    "import": _imported,
    "train": say_trained,
    "search": say_searched,
    "evaluate": say_report,
    "quantize": lambda face, result: say_files(face, result["files"]),
    "audit-privacy": say_audit,
}
