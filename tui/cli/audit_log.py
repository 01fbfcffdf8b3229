"""cloister audit: proof that the log only grew, who sent a prompt, and the way out of a damaged log."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tui.cli.face import Face, command

_AGAINST = {
    "held": "the checkpoint that you held",
    "signed": "an older checkpoint that the site has signed",
    "claimed": "the older size as the file claims it: give a checkpoint that you kept with --held",
}


def register(app: typer.Typer) -> None:
    """Add the commands to `cloister audit`."""
    command(app, "prove-consistency")(prove)
    command(app, "check-consistency")(check)
    command(app, "find-prompt")(find_prompt)
    command(app, "repair")(repair)


def prove(
    face: Face,
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    first: Annotated[int, typer.Option("--from", min=1, help="Entries that the other side knows of.")],
    last: Annotated[
        int | None, typer.Option("--to", min=1, help="A size that was signed. Left out: now, signed anew.")
    ] = None,
) -> None:
    """Write a proof that the log only grew since it had so many entries (RFC 6962, section 2.1.2).

    For a partner or an auditor who holds an older checkpoint: it shows, without any entry's text, that
    nothing of what they saw was changed or taken out.
    """
    from tui import session_log

    made = session_log.prove_growth(face.session, file, first=first, last=last)
    face.say(f"Proof from {made['from']} to {made['size']} entries: {file}")
    face.say(f"  log          {made['origin']}")
    face.say(f"  fingerprint  {made['fingerprint']}")
    face.wrap("Others check it with: cloister audit check-consistency FILE --key KEY --held NOTE")
    face.result(made)


def check(
    face: Face,
    file: Annotated[Path, typer.Argument(help="A file that `audit prove-consistency` wrote.")],
    key: Annotated[
        str | None,
        typer.Option(help="The site's public key, as 64 hex digits or a file. Default: this site."),
    ] = None,
    held: Annotated[
        Path | None, typer.Option(help="A checkpoint that you kept: the proof must begin with just that.")
    ] = None,
) -> None:
    """Check a proof that a log only grew, on any machine: needs the site's key and no database."""
    from tui import session_log

    told = session_log.check_growth(None if key else face.session.home, file, key, held)
    face.wrap(
        f"GROWN: the log of {told['origin']} with {told['size']} entries begins with the {told['from']} of"
        f" before, held against {_AGAINST[told['against']]}."
    )
    face.say(f"  root at {told['from']:<6} {told['from_root'][:32]}..")
    face.say(f"  time         {told['time'][:19].replace('T', ' ')} UTC")
    face.say(f"  fingerprint  {told['fingerprint']}")
    face.result(told)


def find_prompt(face: Face) -> None:
    """Find who sent a prompt that you hold: give it on standard input, never on the command line.

    The prompt itself, or the request's messages as JSON:  cloister audit find-prompt < FILE

    The log holds no text: it can only say whether just this was sent, by which key and when, for 30 days.
    Every look is an entry of the log, which does not hold the prompt either.
    """
    from tui import session_log

    def typed(most: int) -> str:
        if sys.stdin.isatty():
            sys.stderr.write("The prompt, then Ctrl-D:\n")
        return sys.stdin.read(most)

    told = session_log.find_prompt(face.session, typed)
    face.table(
        ("at", "key", "model", "request"),
        [(one["at"][:19], one["key"], one["model"], one["request"]) for one in told["requests"]],
        "Nobody sent just this in the last 30 days, as far as the log knows.",
    )
    face.result(told)


def repair(
    face: Face,
    because: Annotated[
        str, typer.Option(help="What happened, from who signs first; stays in the log for ever.")
    ] = "",
) -> None:
    """Set a damaged log aside as evidence and begin a new one. Two people sign, one after the other.

    First take a copy of the home folder and look at `cloister audit verify`: a backup may be better. The
    first person gives --because; the second reads what is shown and gives the same command. The old log is
    kept in damaged-logs, hashed; the new one's first entry tells of it, and so does every report from then
    on.
    """
    from tui import session_log

    waits = session_log.repair_waiting(face.session)
    if waits is not None:
        _say_statement(face, waits)
    told = session_log.repair(face.session, because)
    if waits is None:
        _say_statement(face, told)
    face.say(f"  signed by    {', '.join(told['agreed'])}")
    if told["done"]:
        number = told["renewal"]["number"]
        face.wrap(f"Done. The old log lies in damaged-logs/{number} of the home folder: keep it.")
        face.say(f"  its SHA-256  {told['renewal']['evidence']}")
        face.wrap("The new log's checkpoints have a name of their own; give partners one now:")
        face.say("  cloister audit checkpoint --to FILE")
        face.wrap("Requests that waited for two people are void. An endpoint that stopped: start it again.")
    else:
        face.wrap(f"It needs {told['needs']}: they give cloister audit repair within 24 hours.")
    face.result(told)


def _say_statement(face: Face, told: dict[str, Any]) -> None:
    found = told["statement"]
    face.say(f"The audit log, {found['entries']} entries, intact up to {found['intact']}:")
    for text in found["damages"]:
        face.wrap(text, "  - ", "    ")
    face.say(f"  last signed  {found['checkpoint_size'] or 'never'}")
    face.wrap(found["because"], "  because      ", " " * 15)
