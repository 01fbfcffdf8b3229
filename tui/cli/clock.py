"""cloister clock: what this site knows of the time, and its repair by two people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from appliance.core.errors import ConfigWrong
from tui.cli.face import Face, command

app = typer.Typer(help="What this site believes of the time, and its repair.", no_args_is_help=True)


@command(app, "status")
def status(face: Face) -> None:
    """Show the machine's clock beside the time that is known at least, and what that means.

    The time is at least what trusted signers have vouched for, and what the audit log saw after that. A clock
    below it is not believed, so that setting it back revives nothing that has expired.
    """
    from tui import session_clock

    found = session_clock.status(face.session)
    _say(face, found)
    if found["state"] != "right":
        face.wrap("Next: set the machine's clock right. If it is right and the floor is not, two people")
        face.say('repair it: cloister clock repair 2026-11-25T10:15 --because "..."')
    face.result(found)


@command(app, "repair")
def repair(
    face: Face,
    time: Annotated[
        str, typer.Argument(metavar="TIME", help="The right time, UTC: 2026-11-25T10:15, or a date.")
    ],
    because: Annotated[str, typer.Option(help="What happened to the clock; goes into the audit log.")],
) -> None:
    """Believe this time from now on, although a later one got in before. Two people agree to it.

    Only where the floor is wrong: a signer's clock ran ahead, or this machine's did while a bundle came in.
    What expired in between can then be imported again. The second person signs with `cloister approve yes`;
    then give this very command again.
    """
    from tui import session_clock

    found = session_clock.repair(face.session, _moment(time), because)
    face.say("The time is repaired.")
    _say(face, found)
    face.result(found)


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigWrong(f"{text[:40]} is no time.", "Such as 2026-11-25T10:15, in UTC.") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _say(face: Face, found: dict[str, Any]) -> None:
    face.say(f"  state    {found['state']}")
    face.say(f"  clock    {_short(found['machine'])}")
    face.say(f"  at least {_short(found['floor'])}")
    told = _short(found["vouched"]) if found["vouched"] else "nobody's signature gave a time yet"
    face.say(f"  vouched  {told}")
    face.wrap(found["why"])


def _short(text: str) -> str:
    return f"{text[:19].replace('T', ' ')} UTC"
