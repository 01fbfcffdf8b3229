"""A site with one person of each role, for tests: founded once, copied to every test's home."""

from __future__ import annotations

import functools
import shutil
import sqlite3
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from appliance.core.db import reading, transaction
from appliance.core.home import Home, open_home
from appliance.security import audit
from appliance.security.passphrase import Cost
from appliance.security.people import persons
from appliance.security.people.guard import Actor, identify
from appliance.security.people.persons import NewPerson
from appliance.security.people.roles import AUDITOR, OFFICER, OPERATOR, SECURITY
from appliance.security.people.signing import SeedSigner
from appliance.security.trust import clock

ROLE_OF = {"ana": OPERATOR, "olga": OFFICER, "aude": AUDITOR, "sam": SECURITY}
SEEDS = {name: bytes([number]) * 32 for number, name in enumerate([*ROLE_OF, "otto", "eve"], start=1)}
START = datetime(2026, 1, 1, tzinfo=UTC)


def passphrase(name: str) -> str:
    """What a person of these tests types."""
    return f"the horse of {name} eats 7 staples"


def new(name: str, role: str) -> NewPerson:
    """A person to be entered, with a known key."""
    return NewPerson(name=name, role=role, passphrase=passphrase(name), seed=SEEDS[name])


def signer(name: str) -> SeedSigner:
    """The key of a person."""
    return SeedSigner(person=name, seed=SEEDS[name])


def actor(home: Home, name: str) -> Actor:
    """The person, signed in."""
    return identify(home, signer=signer(name))


def person_of(role: str) -> str:
    """Who has this role."""
    return next(name for name, held in ROLE_OF.items() if held == role)


@functools.cache
def _template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="cloister-people-"))
    home = open_home(folder / "home")
    persons.found(
        home, "St. Anna", [new(name, role) for name, role in ROLE_OF.items()], cost=Cost(), now=START
    )
    return home.path


def settle_in(home: Home) -> Home:
    """Make `home` the site of ana (operator), olga (officer), aude (auditor) and sam (security admin)."""
    shutil.copytree(_template(), home.path, dirs_exist_ok=True)
    return home


def settle_people(home: Home) -> None:
    """Give a home that has been in use the same people, from today."""
    people = [new(name, role) for name, role in ROLE_OF.items()]
    persons.found(home, "St. Anna", people, cost=Cost(), now=persons.utc_now() + timedelta(minutes=1))


def sql(home: Home, statement: str, *values: object) -> None:
    """Change a row by hand, as somebody with the database alone would."""
    with transaction(home) as link:
        for table in ("audit", "audit_tree"):
            for verb in ("UPDATE", "DELETE"):
                link.execute(f"DROP TRIGGER IF EXISTS {table}_no_{verb}")
        link.execute(statement, values)


def vouch(link: sqlite3.Connection, seconds: int) -> None:
    """A time that a signer vouched for, as a bundle that came in brings it."""
    clock.vouched(link, seconds)
    audit.record(link, who="tests", what="bundle.import", target="-", created=seconds)


def column(home: Home, query: str, *values: object) -> list[object]:
    """The first column of some rows."""
    with reading(home) as link:
        return [row[0] for row in link.execute(query, values)]


def lines(home: Home, what: str) -> int:
    """How many audit lines of this kind there are."""
    return len(column(home, "SELECT seq FROM audit WHERE entry LIKE ?", f'%"what":"{what}"%'))
