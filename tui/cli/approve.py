"""cloister approve: what two people are asked, and their answers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from appliance.core.sealing import sealed_home
from appliance.security.people.roles import needed
from appliance.security.people.rows import Asked
from tui.cli.face import Face, command

app = typer.Typer(help="What two people must agree to: look, sign or refuse.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The request.", metavar="ID")]


@command(app, "list")
def list_(
    face: Face,
    every: Annotated[bool, typer.Option("--all", help="Also what was used, refused or has expired.")] = False,
) -> None:
    """List what waits for a second person, or for its use."""
    from tui import session_people

    found = session_people.requests(face.session, every=every)
    face.table(
        ("id", "what", "target", "asked by", "agreed", "until", "state"),
        [
            (
                asked.id,
                asked.request["action"],
                asked.request["target"],
                asked.request["asker"],
                ", ".join(asked.agreed) or "-",
                asked.request["expires"][:16],
                asked.state,
            )
            for asked in found
        ],
        "Nobody is asked anything.",
        spare=("until", "asked by"),
    )
    face.result({"requests": [told_of(asked) for asked in found]})


@command(app)
def show(face: Face, request_id: Id) -> None:
    """Show all that you would sign."""
    from tui import session_people

    asked = session_people.request(face.session, request_id)
    say_asked(face, asked)
    face.result(told_of(asked))


@command(app)
def yes(face: Face, request_id: Id) -> None:
    """Agree, with your signature. Look at it first: cloister approve show ID."""
    _answer(face, request_id, yes=True)


@command(app)
def no(face: Face, request_id: Id) -> None:
    """Refuse; that ends the request."""
    _answer(face, request_id, yes=False)


def _answer(face: Face, request_id: str, *, yes: bool) -> None:
    from tui import session_people

    session = face.session
    asked = session_people.answer(session, request_id, yes=yes)
    say_asked(face, asked)
    if (
        asked.state == "used"
        and asked.request["action"] == "person.remove"
        and sealed_home(session.home.path)
    ):
        face.wrap(f"{asked.request['target']} cannot unlock any more. What they knew of the keys, they know.")
        face.say("Next: cloister vault rotate")
    if asked.state == "approved":
        face.wrap(f"It can be done now, once: {asked.request['asker']} gives the command again.")
    face.result(told_of(asked))


def say_asked(face: Face, asked: Asked) -> None:
    """A request in full."""
    request = asked.request
    face.say(f"{asked.id}  {request['action']}  {request['target']}: {asked.state}")
    for name, value in request["content"].items():
        face.wrap(value, f"  {name:<12} ")
    face.wrap(request["digest"], "  digest       ")
    face.say(f"  asked by     {request['asker']}, {request['asked'][:16]}")
    face.say(f"  until        {request['expires'][:16]}")
    face.say(f"  agreed       {', '.join(asked.agreed) or 'nobody yet'}")
    if asked.refused:
        face.say(f"  refused by   {', '.join(asked.refused)}")
    if asked.state == "pending":
        face.wrap(f"It needs {needed(request['action'])}: cloister approve yes {asked.id}", "  ")


def told_of(asked: Asked) -> dict[str, Any]:
    """For JSON."""
    told = {"state": asked.state, "agreed": list(asked.agreed), "refused": list(asked.refused)}
    return dict(asked.request) | told | {"needs": needed(asked.request["action"]), "used_for": asked.used_for}
