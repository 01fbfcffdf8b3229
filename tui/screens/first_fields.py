"""What the first run asks, and what is made of the answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.core.errors import ConfigWrong
from appliance.data.readers import record_files
from appliance.security.passphrase import check_new
from appliance.security.people.persons import NewPerson, check_founders, check_person, check_site
from appliance.security.people.roles import OFFICER, OPERATOR, SECURITY
from tui.fields import Field
from tui.screens.import_fields import DEMO, OWN

ONE, SEVERAL = "one person", "people who check each other"
LATER = "later"
WELCOME = "There is no site on this machine yet. A few answers make one; esc leaves, and nothing is made.\n"

SITE = (
    Field(
        key="site",
        title="1 Name of the site",
        help="As people call it, such as St. Anna Hospital. It stands in reports and on what is signed here.",
        needed=True,
    ),
    Field(
        key="who",
        title="2 Who runs it",
        help="one person: may do everything, and every report says so. people who check each other: exports"
        " and budgets need two of them; records are sealed.",
        kind="choice",
        choices=(ONE, SEVERAL),
        default=ONE,
    ),
    Field(
        key="records",
        title="3 Records to start on",
        help="made up: messages to a clinic that never was, to see the whole way. our own: a file or folder"
        " of yours. later: decide in the screens.",
        kind="choice",
        choices=(DEMO, OWN, LATER),
        default=DEMO,
    ),
    Field(
        key="path",
        title="  File or folder",
        help="Where the records lie. Nothing is read before you say so on the next screens.",
        kind="path",
        needed=True,
        when=("records", OWN),
    ),
)


def _secret(key: str, whose: str, *, needed: bool, when: tuple[str, str] | None = None) -> tuple[Field, ...]:
    return (
        Field(
            key=key,
            title="  Passphrase",
            help=f"{whose} types it; nobody else looks. 12 characters or more: four or five words that do not"
            " belong together. Nobody can bring it back.",
            kind="secret",
            needed=needed,
            when=when,
        ),
        Field(
            key=f"{key}-again",
            title="  Once more",
            help="The same passphrase again.",
            kind="secret",
            needed=needed,
            when=when,
        ),
    )


def check_first(found: Mapping[str, Any]) -> None:
    """Check the first answers, while they can still be mended where they stand.

    Raises:
        ConfigWrong: a site cannot be called that.
        NotFound, DataRejected: the records cannot be read.
    """
    check_site(found["site"])
    if found["records"] == OWN:
        record_files(found["path"])


def seal_fields(records: str) -> tuple[Field, ...]:
    """The fourth question to one person; made-up records need no seal unless it is wanted."""
    return (
        Field(
            key="seal",
            title="4 Seal the site",
            help="yes: records, models and reports are unreadable on the disk without your passphrase, which"
            " opens the site after each start of the machine.",
            kind="yes",
            default="no" if records == DEMO else "yes",
        ),
        *_secret("passphrase", "Whoever runs the site", needed=True, when=("seal", "yes")),
    )


_ROLES = (
    ("security", SECURITY, "Security admin", "looks after people and keys", True),
    ("officer", OFFICER, "Privacy officer", "agrees to budgets and to what leaves", True),
    ("operator", OPERATOR, "Operator", "imports, trains and serves; may stay empty and come later", False),
)
PEOPLE = tuple(
    field
    for key, _, title, what, needed in _ROLES
    for field in (
        Field(key=key, title=f"4 {title}", help=f"A name such as mira. This person {what}.", needed=needed),
        *_secret(f"{key}-passphrase", "This person", needed=needed),
    )
)


def founders(found: Mapping[str, Any]) -> list[NewPerson]:
    """The first people, who are not one person alone.

    Raises:
        ConfigWrong: a name or a passphrase will not do.
    """
    people = []
    for key, role, title, _, _ in _ROLES:
        if name := found[key]:
            check_same(found, f"{key}-passphrase", f"{title}: ")
            people.append(NewPerson(name=name, role=role, passphrase=found[f"{key}-passphrase"] or ""))
    check_founders(people)
    return people


def alone(found: Mapping[str, Any], account: str) -> list[NewPerson]:
    """The one person who opens a sealed site, called as their account is; nobody where it is not sealed.

    Raises:
        ConfigWrong: the passphrase will not do.
    """
    if not found["seal"]:
        return []
    check_same(found, "passphrase", "")
    check_new(found["passphrase"])
    check_person(account, OPERATOR)
    return [NewPerson(name=account, role=OPERATOR, passphrase=found["passphrase"])]


def check_same(found: Mapping[str, Any], key: str, whose: str) -> None:
    """Check a passphrase that was typed two times.

    Raises:
        ConfigWrong: it was typed in two ways.
    """
    if found[key] != found[f"{key}-again"]:
        raise ConfigWrong(f"{whose}The two passphrases are not the same.", "Type both again.")


def given_of(first: Mapping[str, Any]) -> dict[str, str]:
    """What the import form begins with."""
    if first["records"] == OWN:
        return {"source": OWN, "path": str(first["path"])}
    return {"source": DEMO} if first["records"] == DEMO else {}


def made_text(made: Mapping[str, Any]) -> str:
    """What was made, and what to do outside of the screens."""
    lines = [f"{made['site']} is there.", "", made["statement"][0].upper() + made["statement"][1:] + "."]
    lines += [f"  {one['name']:<20} {one['role']}" for one in made["people"]]
    if made["sealed"]:
        lines += [
            "",
            "It is sealed, and open now. After a start of the machine: cloister unlock",
            "Print recovery shares soon, in a shell: cloister vault recovery",
        ]
    if made["people"] and OPERATOR not in {one["role"] for one in made["people"]}:
        lines += ["", "Nobody imports or trains yet: 9 Audit, u People, a adds an operator."]
    return "\n".join([*lines, "", "Home names the next step; Enter does it."])
