"""cloister demo: the whole chain on the shipped base and made-up records."""

from __future__ import annotations

from typing import Any

import typer

from tui.cli.face import Face, command

_NAMES = {"base": "base, untuned", "f16": "tuned", "int8": "tuned, INT8", "int4": "tuned, INT4"}


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app)(demo)


def demo(face: Face) -> None:
    """Show the whole chain in about three minutes, on made-up records and the small shipped base.

    Import, private fine-tuning, conversion, INT8 and INT4, evaluation, an endpoint, three questions.
    Run it twice: it reuses what is there. Try it elsewhere with --home DIR.
    """
    from tui.demo import run
    from tui.words import statement

    result = run(face.session, follow=face.follow, say=face.say)
    face.say()
    face.table(
        ("model", "accuracy", "95 % interval", "size", "tokens/s"),
        [_cells(_title(role, row["type"]), row) for role, row in result["models"].items()],
        "",
    )
    face.say()
    face.say(statement(result["privacy"]))
    for gate in result["gates"]:
        face.say(f"gate {'PASS' if gate['passed'] else 'FAIL'}  {gate['model']}")
    face.say(f"report   {result['report']}")
    face.say(f"all else {result['home']}")
    face.say(f"took     {result['seconds'] // 60:.0f} min {result['seconds'] % 60:.0f} s")
    face.result(result)


def _title(role: str, kind: str) -> str:
    """The quantiser steps up from INT4 when that file is not the model; then there is none to show."""
    if role == "int4" and not kind.startswith("Q4"):
        return f"no INT4 was close enough; smallest ({kind})"
    return f"{_NAMES[role]} ({kind})"


def _cells(title: str, row: dict[str, Any]) -> tuple[str, ...]:
    low, high = row["ci"]
    speed = row["tokens_per_second"]
    return (
        title,
        f"{row['accuracy']:.3f}",
        f"{low:.3f} - {high:.3f}",
        f"{row['size'] / 1e6:.1f} MB",
        "-" if speed is None else f"{speed:,.0f}",
    )
