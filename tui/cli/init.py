"""cloister init: the name of the site and its first people, or one person who says so in every report."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from appliance.core.errors import ConfigWrong
from appliance.core.home import open_home
from appliance.security.people.persons import NewPerson
from appliance.security.people.roles import OFFICER, OPERATOR, ROLES, SECURITY
from tui.cli.asking import ask, asks, named_files, new_passphrase
from tui.cli.face import Face, command

_PERSON = "--person NAME:ROLE (twice or more)"


def register(app: typer.Typer) -> None:
    """Add `cloister init`."""
    command(app, "init")(init)


def init(
    face: Face,
    site: Annotated[str | None, typer.Option(help="The name of the site.")] = None,
    single_person: Annotated[
        bool,
        typer.Option(
            "--single-person", help="One person may do everything; every report and card will say so."
        ),
    ] = False,
    seal: Annotated[
        bool, typer.Option("--seal", help="With --single-person: seal the data under a passphrase.")
    ] = False,
    person: Annotated[
        list[str] | None,
        typer.Option(help=f"NAME:ROLE, once for each; ROLE is {', '.join(ROLES)}.", metavar="NAME:ROLE"),
    ] = None,
    passphrase_file: Annotated[
        list[str] | None,
        typer.Option(help="Where a person's passphrase stands, once for each.", metavar="NAME=FILE"),
    ] = None,
) -> None:
    """Make a site of this home: its name, and people who check each other.

    At least a privacy officer and a security admin; each types a passphrase of their own. Exports, raised
    budgets, training without privacy and changes of people then need two of them. Records, models and
    reports are sealed; `cloister unlock` opens the site after each start of the machine.
    """
    from appliance.security.vault.existing import REST
    from tui import session_people

    if not asks():
        missing = [] if site else ["--site NAME"]
        missing += [] if single_person or person else [f"{_PERSON} or --single-person"]
        if missing:
            raise ConfigWrong("Nobody can be asked here.", f"Add {' and '.join(missing)}.")
    files = named_files(passphrase_file, "--passphrase-file mira=FILE")
    if single_person and person:
        raise ConfigWrong("One person has no role.", "Leave --person or --single-person out.")
    if seal and not single_person:
        raise ConfigWrong("A site with people is always sealed.", "Leave --seal out.")
    name = site or ask("Name of the site", "--site NAME")
    people = _people(person, files) if not single_person else _alone(files) if seal else []
    made = session_people.initialise(open_home(face.home), name, people, single=single_person)
    face.say(f"{made['site']}: {made['mode']}")
    for one in made["people"]:
        face.say(f"  {one['name']:<24} {one['role']}")
    face.wrap(made["statement"][0].upper() + made["statement"][1:] + ".")
    if made["sealed"]:
        face.wrap("Sealed and unlocked. Sign in at a terminal with: cloister unlock --as NAME")
        if made["were_plain"]:
            face.wrap(REST)
        face.say("Print recovery shares now: cloister vault recovery")
    if made["people"] and OPERATOR not in {one.role for one in people}:
        face.wrap(f"Nobody imports or trains yet. Next: cloister people add NAME {OPERATOR} --as NAME")
    face.result(made)


def _alone(files: dict[str, Path]) -> list[NewPerson]:
    """The one person of a site, who can unlock it."""
    name = next(iter(files), getpass.getuser())
    words = new_passphrase(name, files.get(name), f"--passphrase-file {name}=FILE")
    return [NewPerson(name=name, role=OPERATOR, passphrase=words)]


def _people(given: Sequence[str] | None, files: dict[str, Path]) -> list[NewPerson]:
    """The first people, from options or asked one after the other."""
    pairs = [_pair(words) for words in given or ()]
    if not pairs:
        pairs = [(ask(f"Name of the {role}", _PERSON), role) for role in (SECURITY, OFFICER)]
        while more := ask("One more as NAME:ROLE, or nothing", _PERSON):
            pairs.append(_pair(more))
    if unknown := sorted(set(files) - {name for name, _ in pairs}):
        raise ConfigWrong(f"{unknown[0]} is none of these people.", f"Add {_PERSON}.")
    return [
        NewPerson(
            name=name,
            role=role,
            passphrase=new_passphrase(name, files.get(name), f"--passphrase-file {name}=FILE"),
        )
        for name, role in pairs
    ]


def _pair(words: str) -> tuple[str, str]:
    name, sign, role = words.partition(":")
    if not sign or role not in ROLES:
        raise ConfigWrong(f"{words[:60]} is not NAME:ROLE.", f"A ROLE is {', '.join(ROLES)}.")
    return name, role
