"""cloister people: who is here, what they may, changes that two of them sign, emergencies."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.security.people.roles import ROLES
from appliance.security.people.rows import Asked
from tui.cli.approve import say_asked, told_of
from tui.cli.asking import new_passphrase, passphrase_of
from tui.cli.face import Face, command

app = typer.Typer(help="People of this site: roles, keys, emergencies.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The person's name.")]
Role = Annotated[str, typer.Argument(help=f"{', '.join(ROLES)}.", metavar="ROLE")]
NewFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="Where the new passphrase stands; without it, it is typed."),
]


@command(app, "list")
def list_(face: Face) -> None:
    """List the people with their roles, who is locked, and emergencies that wait for a review."""
    from tui import session_people

    told = session_people.people(face.session)
    if told["site"]:
        face.say(told["site"])
    face.table(
        ("name", "role", "key", "state"),
        [
            (one["name"], one["role"], session_people.fingerprint(one["public"]), _state(one))
            for one in told["people"]
        ],
        "One person runs this site. Give it people: cloister init",
    )
    face.wrap(told["statement"][0].upper() + told["statement"][1:] + ".")
    for case in told["emergencies"]:
        if case["state"] != "reviewed":
            face.wrap(f"RED: emergency {case['id']}, {case['person']} as operator, {case['state']}")
            face.wrap(case["reason"], "     ")
            face.say(f"     review it: cloister people review {case['id']}")
    face.result(told)


@command(app)
def rights(face: Face) -> None:
    """Show who may do what; `2` marks what two people must agree to, one of them a privacy officer."""
    from tui import session_people

    rows = session_people.rights()
    face.table(
        ("may", "op", "po", "au", "sa", "two", "what"),
        [
            (
                row["action"],
                *("x" if role in row["roles"] else "" for role in ROLES),
                "2" if row["two_people"] else "",
                row["words"],
            )
            for row in rows
        ],
        "Nobody may do anything.",
    )
    face.say("op operator  po privacy-officer  au auditor  sa security-admin")
    face.result({"roles": list(ROLES), "rights": rows})


@command(app)
def add(face: Face, name: Name, role: Role, passphrase_file: NewFile = None) -> None:
    """Ask for a new person, who types a passphrase here; a second person then signs."""
    from tui import session_people

    session = face.session
    phrase = new_passphrase(name, passphrase_file, "--passphrase-file FILE")
    _asked(face, session_people.add(session, name, role, phrase))


@command(app)
def remove(face: Face, name: Name) -> None:
    """Ask for a person to be removed; a second person then signs. Names are never used again."""
    from tui import session_people

    _asked(face, session_people.remove(face.session, name))


@command(app)
def role(face: Face, name: Name, new: Role) -> None:
    """Ask for another role of a person; a second person then signs."""
    from tui import session_people

    _asked(face, session_people.give_role(face.session, name, new))


@command(app)
def reset(face: Face, name: Name, passphrase_file: NewFile = None) -> None:
    """Ask for a new key of a person who forgot the passphrase and types a new one here."""
    from tui import session_people

    session = face.session
    phrase = new_passphrase(name, passphrase_file, "--passphrase-file FILE")
    _asked(face, session_people.reset(session, name, phrase))


@command(app)
def passphrase(face: Face, passphrase_file: NewFile = None) -> None:
    """Change your own passphrase; your key stays the same."""
    from tui import session_people

    session = face.session
    old = passphrase_of(session.who)
    new = new_passphrase(session.who, passphrase_file, "--passphrase-file FILE")
    session_people.change_passphrase(session, old, new)
    face.say(f"{session.who} has a new passphrase.")
    face.result({"name": session.who, "changed": True})


@command(app, "break-glass")
def break_glass(
    face: Face,
    reason: Annotated[str, typer.Option(help="What happened; goes into the audit log. No patient's name.")],
    minutes: Annotated[int, typer.Option(help="For how long, at most 60.", min=1, max=60)] = 30,
) -> None:
    """Act once as operator in an emergency. Shown red until a privacy officer has reviewed it."""
    from tui import session_people

    case = session_people.break_glass(face.session, reason, minutes)
    face.say(f"{case.person} acts as operator until {case.until[:16]} UTC (emergency {case.id}).")
    face.say("End it before: cloister people end-emergency")
    face.result(asdict(case))


@command(app, "end-emergency")
def end_emergency(face: Face) -> None:
    """End your own emergency before its time."""
    from tui import session_people

    session_people.end_emergency(face.session)
    face.say("The emergency is over; a privacy officer reviews it.")
    face.result({"ended": True})


@command(app)
def review(face: Face, case_id: Annotated[str, typer.Argument(help="The emergency.", metavar="ID")]) -> None:
    """Sign that you looked at what was done in an emergency."""
    from tui import session_people

    case = session_people.review(face.session, case_id)
    face.say(f"Emergency {case.id} of {case.person} is reviewed by {case.reviewed_by}.")
    face.result(asdict(case))


def _asked(face: Face, asked: Asked) -> None:
    say_asked(face, asked)
    face.result(told_of(asked))


def _state(one: dict[str, Any]) -> str:
    if one["removed"]:
        return f"removed {one['removed'][:10]}"
    if one.get("locked_until") and one["failed"]:
        return f"locked until {one['locked_until'][:16]}"
    return f"since {one['since'][:10]}"
