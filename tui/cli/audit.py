"""cloister audit: who did what, whether that is still what was written, and proof for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.core.errors import ConfigWrong, LogDamaged
from tui.cli.audit_log import register
from tui.cli.face import Face, command, tell

app = typer.Typer(help="Who did what, and proof that nobody rewrote it.", no_args_is_help=True)


@command(app, "tail")
def audit_tail(face: Face, count: Annotated[int, typer.Option("-n", help="How many entries.")] = 20) -> None:
    """Show the newest audit entries."""
    if count < 1:
        raise ConfigWrong("-n must be at least 1.", "Try -n 20.")
    entries = face.session.audit_tail(count)
    face.table(
        ("seq", "at", "who", "what", "target"),
        [(e["seq"], e["at"][:19], e["who"], _what(e), e["target"]) for e in entries],
        "Nothing was done here yet.",
    )
    face.result({"entries": entries})


def _what(entry: dict[str, Any]) -> str:
    """What was done; of serving also whether the gate was left out."""
    return f"{entry['what']}{' ungated' if entry.get('ungated') else ''}"


@command(app, "verify")
def verify(
    face: Face,
    file: Annotated[
        Path | None, typer.Argument(help="An exported file or a checkpoint, checked on its own.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="FILE's signing site: its public key, as 64 hex digits or a file.")
    ] = None,
) -> None:
    """Check that the log is whole, unchanged, and what its witnesses saw.

    With FILE, check that instead: no database is needed, so partners and auditors can do it.
    """
    from tui import session_audit

    if file is not None:
        told = session_audit.verify_file(None if key else face.session.home, file, key)
        if "first" in told:
            face.wrap(f"Entries {told['first']} to {told['last']} are in the log of {told['origin']}.")
        _say_checkpoint(face, told)
        face.result(told)
        return
    if key is not None:
        raise ConfigWrong("--key is for a file.", "cloister audit verify FILE --key KEY")
    told = session_audit.verify(face.session)
    face.wrap(f"The audit log is {told['text']}.")
    if told["renewals"]:
        face.wrap("What was set aside lies in damaged-logs of the home folder: keep it.")
    for damage in told["damages"]:
        face.wrap(damage["text"], f"  {damage['kind']}: ", "    ")
    face.wrap(told["limit"])
    face.result(told)
    if not told["ok"]:
        problem = LogDamaged(told["error"]["message"], told["error"]["hint"])
        tell(problem, as_json=False)
        raise typer.Exit(problem.exit_code)


@command(app, "checkpoint")
def checkpoint(
    face: Face,
    to: Annotated[Path | None, typer.Option(help="Write it to this file, on a stick for one.")] = None,
) -> None:
    """Sign the log as it is now. Keep the result elsewhere: it is what shows tampering later."""
    from tui import session_audit

    made = session_audit.checkpoint(face.session, to)
    if to is None:
        face.say(made["note"])
    _say_checkpoint(face, made)
    if to is not None:
        face.wrap(f"Written to {to}. Keep it away from this machine.")
    face.say("Bring it back with: cloister audit witness FILE")
    face.result(made)


@command(app, "witness")
def witness(
    face: Face, file: Annotated[Path, typer.Argument(help="A checkpoint or export that was kept elsewhere.")]
) -> None:
    """Bring back a checkpoint from a partner, a stick or paper: the log must extend it from now on."""
    from tui import session_audit

    told = session_audit.witness(face.session, file)
    if told["set_aside"]:
        face.wrap(
            f"It is of a log that was set aside on {told['set_aside']['at'][:10]}, whose first"
            f" {told['size']} entries are those that were signed."
        )
        _say_checkpoint(face, told)
        face.result(told)
        return
    face.say(f"The log extends it: witnessed at {told['size']}.")
    if told["same_entries"]:
        first, last = told["same_entries"]
        face.say(f"Entries {first} to {last} are the same as in the file.")
    _say_checkpoint(face, told)
    face.result(told)


@command(app, "export")
def export(
    face: Face,
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    first: Annotated[int, typer.Option(min=1, help="First entry.")] = 1,
    last: Annotated[int | None, typer.Option(min=1, help="Last entry; left out, the newest.")] = None,
) -> None:
    """Write entries with proofs that anybody can check with the site's public key."""
    from tui import session_audit

    made = session_audit.export(face.session, file, first=first, last=last)
    face.wrap(f"Entries {made['first']} to {made['last']} are in {file}.")
    _say_checkpoint(face, made)
    face.wrap("Others check it with: cloister audit verify FILE --key KEY")
    face.result(made)


register(app)


def _say_checkpoint(face: Face, told: dict[str, Any]) -> None:
    face.say(f"  log          {told['origin']}")
    face.say(f"  entries      {told['size']}")
    face.say(f"  time         {told['time'][:19].replace('T', ' ')} UTC")
    face.say(f"  fingerprint  {told['fingerprint']}")
