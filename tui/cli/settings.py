"""`cloister settings`: how the screens look, for this account."""

from __future__ import annotations

from typing import Annotated

import typer

from tui import settings
from tui.cli.face import Face, command


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "settings")(show)


def show(
    face: Face,
    theme: Annotated[str | None, typer.Option("--theme", help="dark, light or contrast.")] = None,
    plain: Annotated[str | None, typer.Option("--plain", help="ASCII only: auto, always or never.")] = None,
) -> None:
    """Show how the screens look, or change it: for this account, at every site."""
    path = settings.place()
    found = settings.read_settings(path)
    given = {key: value for key, value in (("theme", theme), ("plain", plain)) if value is not None}
    if given:
        found = settings.checked(found, given, path)
        settings.write_settings(path, found)
    for key, value in found.items():
        face.say(f"{key:<8} {value}")
    face.say(f"kept in  {path}")
    face.result({"settings": found, "path": str(path)})
