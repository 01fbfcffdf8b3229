"""cloister audit-privacy."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from appliance.core.errors import NotFound
from tui.cli.face import Face, command
from tui.cli.privacy_lines import audit_lines
from tui.cli.tables import WIDTH


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
    last: Annotated[bool, typer.Option("--last", help="Show the newest audit of it; run none.")] = False,
) -> None:
    """Attack a trained model and the mechanism that trained it: four tests, a verdict, and its limits.

    A checks noise, clipping and sampling; B and C run the update code on canaries;
    D attacks the adapter and every GGUF file. Nothing is charged to the budget.
    Not detected is not private: every line says the most that it could have shown.
    """
    if last:
        from tui import session_privacy

        report = session_privacy.privacy_audit(face.session, model)
        if report is None:
            raise NotFound(f"No audit says anything of {model}.", f"Run one: cloister audit-privacy {model}")
    else:
        spec = {"model": model, "limit": limit, "canaries": canaries}
        report = face.follow(face.session.start_privacy_audit(spec)).end["result"]
    say_audit(face, report)
    face.result(report)


def say_audit(face: Face, report: dict[str, Any]) -> None:
    """All of an audit, and where it is kept."""
    for line in audit_lines(report, WIDTH):
        face.say(line)
    face.say(f"report: {report['json']}")
