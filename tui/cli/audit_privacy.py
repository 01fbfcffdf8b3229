"""cloister audit-privacy."""

from __future__ import annotations

import textwrap
from typing import Annotated, Any

import typer

from tui.cli.face import Face, command

_WIDTH = 79


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "audit-privacy")(audit_privacy)


def audit_privacy(
    face: Face,
    model: Annotated[
        str, typer.Argument(help="A trained model, which brings its GGUF files, or one such file.")
    ],
    limit: Annotated[int, typer.Option(min=1, help="Records a side for the attacks.")] = 1000,
    canaries: Annotated[int, typer.Option(min=200, help="Canaries for tests B and C.")] = 2000,
) -> None:
    """Attack a trained model and the mechanism that trained it: four tests, a verdict, and its limits.

    A checks noise, clipping and sampling; B and C run the update code on canaries;
    D attacks the adapter and every GGUF file. Nothing is charged to the budget.
    Not detected is not private: every line says the most that it could have shown.
    """
    job_id = face.session.start_privacy_audit({"model": model, "limit": limit, "canaries": canaries})
    report = face.follow(job_id).end["result"]
    say_audit(face, report)
    face.result(report)


def say_audit(face: Face, report: dict[str, Any]) -> None:
    """The table, what each line found and could have found, and what none of it says."""
    face.table(
        ("test", "on", "what", "verdict"),
        [(one["test"], one["on"], one["name"], one["verdict"]) for one in report["findings"]],
        "Nothing was tested.",
    )
    for one in report["findings"]:
        face.say()
        face.say(f"{one['test']}  {one['name']} ({one['on']}): {one['verdict']}")
        _wrapped(face, "found", one["found"])
        _wrapped(face, "could show", one["ceiling"])
    face.say()
    for name, verdict in report["verdicts"].items():
        face.say(f"privacy audit {verdict}  {name}")
    for text in report["limits"]:
        for line in textwrap.wrap(text, _WIDTH, initial_indent="  - ", subsequent_indent="    "):
            face.say(line)
    face.say(f"report: {report['json']}")


def _wrapped(face: Face, name: str, text: str) -> None:
    first = f"   {name:<10} "
    rest = " " * len(first)
    for line in textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    ):
        face.say(line)
