"""cloister airgap: try the ways out, say whether jobs must run in the jail."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from appliance.core.errors import JailRefused
from tui.cli.face import Face, command

app = typer.Typer(help="The air gap: try every way out of this machine.", no_args_is_help=True)


@command(app, "check")
def check(face: Face) -> None:
    """Try every way out of the jail that jobs run in. Nothing is sent beyond this machine.

    Each way is first tried without the jail against a listener here: one that was open there and is
    shut in the jail is proof; one that was shut anyway is none. Fails if a way is open.
    """
    from tui import session_airgap

    found = session_airgap.check(face.session)
    face.table(
        ("way out", "without the jail", "in the jail"),
        [(way["title"], way["control"], _result(way)) for way in found["ways"]],
        "",
    )
    face.say()
    face.wrap(found["line"])
    tried = list(found["ways"][0]["jails"])
    face.wrap(f"Each way was tried in {len(tried)} jails: {', '.join(tried)}.")
    for jail, why in found["left_out"].items():
        face.wrap(f"Jail {jail} was left out: {why}", rest="  ")
    if found["landlock"]:
        face.wrap(f"Landlock {found['landlock']} holds TCP a second time.")
    else:
        face.wrap("This kernel has no Landlock network rules (Linux 6.7): seccomp stands alone.")
    if found["files"]:
        face.wrap("Landlock keeps jobs from writing anywhere but where they must.")
    else:
        face.wrap(
            "LEFT OPEN: this kernel has no Landlock file rules (Linux 5.19), so a job can write wherever this"
            " account can, and put itself in the key agent's place."
        )
    if found["policy"] == "off":
        face.wrap(
            "WARNING: this site's policy lets jobs run without the jail: cloister airgap policy required"
        )
    face.result(found)
    if not found["passed"]:
        names = ", ".join(way["title"] for way in found["ways"] if way["result"] == "open")
        face.warn(f"A way out is open: {names}.", "Stop all jobs, and have this machine looked at.")
        raise typer.Exit(JailRefused.exit_code)


@command(app, "policy")
def policy(
    face: Face,
    jail: Annotated[
        str | None, typer.Argument(help="required or off; left out, the policy is shown.")
    ] = None,
    because: Annotated[str, typer.Option(help="Why jobs run without the jail; goes to the audit log.")] = "",
) -> None:
    """Show or set whether jobs must run in the jail. They must, unless this says off."""
    from tui import session_airgap

    session = face.session
    now = (
        session_airgap.policy(session) if jail is None else session_airgap.set_policy(session, jail, because)
    )
    face.say(
        "Jobs run in the jail, or not at all."
        if now == "required"
        else "Jobs run WITHOUT the jail. Undo it: cloister airgap policy required"
    )
    face.result({"jail": now})


def _result(way: dict[str, Any]) -> str:
    """The result, and of an open way in which jail."""
    jails = ", ".join(jail for jail, found in way["jails"].items() if found == "open")
    return f"{way['result']} ({jails})" if jails else str(way["result"])
