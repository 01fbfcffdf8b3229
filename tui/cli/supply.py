"""cloister supply: what is installed, and whether it still is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from appliance.core.errors import ConfigWrong, InstallationAltered
from appliance.core.files import write_bytes
from tui.cli.face import Face, command, tell

app = typer.Typer(help="The installed software: is it unchanged, what is it made of.", no_args_is_help=True)
_SHOWN = 40  # rows; --json has them all


@command(app, "check")
def check(face: Face) -> None:
    """Hash every installed file and name those that were altered, added or are missing.

    The exit code is 12 when there are any. Everything is read each time; nothing is remembered.
    """
    from tui import session_supply

    told = session_supply.check(face.session)
    face.say(
        f"{told['files']:,} files of {told['packages']} packages, {told['size'] / 1e6:,.0f} MB,"
        f" hashed in {told['seconds']:.1f} s."
    )
    if told["findings"]:
        rows = [(one["what"], one["path"], one["package"]) for one in told["findings"]]
        face.table(("what", "file", "package"), rows[:_SHOWN], "")
        if len(rows) > _SHOWN:
            face.say(f"and {len(rows) - _SHOWN} more; all of them: cloister supply check --json")
    else:
        face.say("Every file is as its package brought it.")
    if told["recorded"] == "none":
        face.say("Nothing was recorded to compare the packages' lists with: cloister supply record")
    elif told["recorded"] == "same":
        face.say("The packages' own lists are as they were recorded.")
    if told["editable"]:
        face.say(f"Run from a source folder, which is not checked: {', '.join(told['editable'])}.")
    if told["unproven"]:
        face.wrap(
            f"{told['unproven']:,} compiled files have no hash (sealed installations have them:"
            " make install PROFILE=edge, or a wheelhouse)."
        )
    face.result(told)
    if not told["intact"]:
        count = len(told["findings"])
        problem = InstallationAltered(
            f"{count} installed file{'s are' if count > 1 else ' is'} not as installed.",
            "Do not use it; install again from the wheelhouse (docs/supply.md).",
        )
        tell(problem, as_json=False)  # the one JSON object is the result
        raise typer.Exit(problem.exit_code)


@command(app, "record")
def record(face: Face) -> None:
    """Keep what is installed now as what later checks compare with. After an installation, and only then."""
    from tui import session_supply

    told = session_supply.record(face.session)
    face.say(f"Recorded: {told['digest']}")
    face.result(told)


@command(app, "sbom")
def sbom(
    face: Face,
    to: Annotated[Path | None, typer.Option(help="Write it to this file instead of the screen.")] = None,
) -> None:
    """What is installed, as a software bill of materials (CycloneDX 1.6 JSON)."""
    from tui import session_supply

    content = session_supply.sbom()
    if to is None:
        sys.stdout.write(content.decode())
        return
    if not to.parent.is_dir():
        raise ConfigWrong(f"There is no folder {to.parent}.", "Make it, or choose another with --to FILE.")
    write_bytes(to, content)
    count = len(json.loads(content)["components"])
    face.say(f"Written: {count} component{'' if count == 1 else 's'} and who needs whom.")
    face.result({"path": str(to), "components": count})
