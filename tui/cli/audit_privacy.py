"""cloister audit-privacy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from tui.cli.face import Face, command


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
    findings = told_once(report["findings"])
    face.table(
        ("test", "on", "what", "verdict"),
        [(one["test"], one["on"], one["name"], one["verdict"]) for one in findings],
        "Nothing was tested.",
    )
    for one in findings:
        face.say()
        face.wrap(f"{one['name']} ({one['on']}): {one['verdict']}", f"{one['test']}  ")
        face.wrap(one["found"], f"   {'found':<10} ")
        face.wrap(one["ceiling"], f"   {'could show':<10} ")
    face.say()
    for name, verdict in report["verdicts"].items():
        face.say(f"privacy audit {verdict}  {name}")
    for text in report["limits"]:
        face.wrap(text, "  - ")
    face.say(f"report: {report['json']}")


def told_once(findings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The findings in order, one that says the same of several files told once of all of them."""
    places: dict[tuple[str, ...], list[str]] = {}
    for one in findings:
        places.setdefault(_said(one), []).append(one["on"])
    return [
        next(one for one in findings if _said(one) == said)
        | {"on": names[0] if len(names) == 1 else f"all {len(names)}: {names[0]} ..."}
        for said, names in places.items()
    ]


def _said(finding: dict[str, Any]) -> tuple[str, ...]:
    return tuple(finding[name] for name in ("test", "name", "verdict", "found", "ceiling"))
