"""The people of a site in its database: read with proof, signed in by passphrase, locked out after guesses.

Roles and keys stand in the signed list (roster.py). The table `people` holds what is not signed: each one's
sealed key, wrong passphrases in a row and until when the next one has to wait.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from appliance.core.db import reading, transaction
from appliance.core.errors import ApplianceError, ConfigWrong, LogDamaged, NotAllowed, NotFound
from appliance.core.home import Home
from appliance.core.vaulted import gone, vault_of
from appliance.security import audit, canonical
from appliance.security.passphrase import Cost, check_new
from appliance.security.people import signing
from appliance.security.people.mode import PEOPLE, Anchor, anchor, write_anchor
from appliance.security.people.roles import OFFICER, ROLES, SECURITY
from appliance.security.people.roster import LISTED, NAME, Person, Roster, check, read_roster, verified
from appliance.security.people.seal import seal, unseal
from appliance.security.people.signing import SeedSigner

IDLE_MINUTES = 10
"""Minutes without a key pressed after which the screens close (tui/idle.py)."""

FREE_TRIES = 5
"""Wrong passphrases in a row before each further one has to wait."""

_FIRST_WAIT, _LONGEST_WAIT = timedelta(minutes=1), timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class NewPerson:
    """A person to be entered: who makes up the passphrase also holds the seed, nobody else."""

    name: str
    role: str
    passphrase: str = field(repr=False)
    seed: bytes = field(repr=False, default_factory=signing.new_seed)


def check_person(name: str, role: str) -> None:
    """Check a name and a role.

    Raises:
        ConfigWrong: one of them is none.
    """
    if not NAME.fullmatch(name):
        raise ConfigWrong(
            "The name of a person is 1 to 32 of a-z, 0-9, dot, dash and underscore, a letter first.",
            "Such as mira or joe.kern.",
        )
    if role not in ROLES:
        raise ConfigWrong(f"There is no role {role[:40]}.", f"Choose one of {', '.join(ROLES)}.")


def check_site(site: str) -> None:
    """Check the name of a site. Raises ConfigWrong."""
    if not 1 <= len(site) <= 64 or not site.isprintable():
        raise ConfigWrong("The name of a site has 1 to 64 printable characters.", "Such as 'St. Anna'.")


def check_founders(people: Sequence[NewPerson]) -> None:
    """Check that these people can be a site's first. Raises ConfigWrong, as `found`."""
    for one in people:
        check_person(one.name, one.role)
        check_new(one.passphrase)
    if len({one.passphrase for one in people}) < len(people):
        raise ConfigWrong(
            "Two people have one passphrase.", "Each makes up one of their own, unseen by others."
        )
    with _told():
        check(_first("", people, ""))


def _first(site: str, people: Sequence[NewPerson], at: str, vault: str = "") -> Roster:
    listed = tuple(
        Person(name=one.name, role=one.role, public=signing.public_of(one.seed), since=at) for one in people
    )
    return Roster(site=site, version=1, before="", people=listed, vault=vault)


def founded(home: Home) -> bool:
    """Whether there are people; an init that was cut off between file and database has founded nothing."""
    tied = anchor(home)
    if tied is None or tied.mode != PEOPLE:
        return False
    with reading(home) as link:
        query = "SELECT EXISTS (SELECT 1 FROM rosters) OR EXISTS (SELECT 1 FROM audit WHERE entry LIKE ?)"
        return bool(link.execute(query, ('%"what":"person.found"%',)).fetchone()[0])


def found(home: Home, site: str, people: Sequence[NewPerson], *, cost: Cost, now: datetime) -> Roster:
    """Give the site its first people, who sign the list of themselves; from now on roles are enforced.

    They also sign which vault seals the home, if one does.

    Raises:
        ConfigWrong: there are people already; or these are fewer than two, share a name, lack a privacy
            officer or a security admin, or one has a passphrase that is easy to guess.
    """
    check_founders(people)
    if founded(home):
        raise ConfigWrong("This site has its people already.", "Add more with `cloister people add NAME`.")
    vault = vault_of(home.path) or ""
    roster = _first(site, people, _text(now), vault)
    told = {"digest": roster.digest}
    signatures = {
        one.name: signing.sign(SeedSigner(person=one.name, seed=one.seed), LISTED, told) for one in people
    }
    sealed = {one.name: seal(one.name, one.seed, one.passphrase, cost) for one in people}
    with transaction(home) as link:
        link.execute("DELETE FROM rosters")  # of an init that did not come to its end
        link.execute("DELETE FROM people")
        _enter(link, roster, {"founders": signatures})
        for name, held in sealed.items():
            link.execute("INSERT INTO people (name, sealed) VALUES (?, ?)", (name, held))
        for first in roster.people:
            audit.record(
                link,
                who=first.name,
                what="person.found",
                target=first.name,
                role=first.role,
                public=first.public,
                roster=roster.digest,
            )
        write_anchor(home, Anchor(mode=PEOPLE, site=site, founding=roster.digest, latest=1, vault=vault))
    return roster


def load(home: Home, link: sqlite3.Connection | None = None) -> Roster | None:
    """The people of the site, every change of them proven; None in single-person mode.

    Raises:
        ApplianceError: the list was changed by other means than its people's signatures. VaultGone: the vault
            that they signed is not the one that is there.
    """
    tied = anchor(home, link)
    if tied is None or tied.mode != PEOPLE:
        return None
    query = "SELECT content, warrant FROM rosters ORDER BY version"
    if link is None:
        with reading(home) as own:
            rows = own.execute(query).fetchall()
    else:
        rows = link.execute(query).fetchall()
    with _damaged():
        roster = _proven(tuple((row["content"], row["warrant"]) for row in rows), tied.founding)
        if roster.version < tied.latest:
            raise ValueError("its newest version is missing")
    if roster.vault and (there := vault_of(home.path)) != roster.vault:
        raise gone("is missing" if there is None else "is that of another home, or damaged")
    return roster


def history(home: Home, link: sqlite3.Connection) -> list[Roster]:
    """Every version of the list, newest first, proven as by `load`; empty in single-person mode.

    Raises:
        ApplianceError: as `load`.
    """
    if load(home, link) is None:
        return []
    rows = link.execute("SELECT content FROM rosters ORDER BY version DESC").fetchall()
    return [read_roster(canonical.decode(row["content"].encode())) for row in rows]


def raise_floor(home: Home) -> None:
    """Write down the newest version of the list outside of the database: it can no longer be rolled back."""
    tied, roster = anchor(home), load(home)
    if tied is not None and roster is not None and roster.version > tied.latest:
        write_anchor(home, replace(tied, latest=roster.version))


@lru_cache(maxsize=16)
def _proven(rows: tuple[tuple[str, str], ...], founding: str) -> Roster:
    return verified(
        [(canonical.decode(content.encode()), json.loads(warrant)) for content, warrant in rows], founding
    )


def person(home: Home, name: str, link: sqlite3.Connection | None = None) -> Person:
    """The person of that name.

    Raises:
        NotFound: nobody here has it.
    """
    roster = load(home, link)
    one = roster.find(name) if roster else None
    if one is None:
        raise NotFound(f"There is no person {name[:40]} here.", "See `cloister people list`.")
    return one


def enter(
    link: sqlite3.Connection, roster: Roster, warrant: dict[str, Any], sealed: str | None, who: str
) -> None:
    """Make an approved version of the list the newest, and keep the new person's sealed key."""
    _enter(link, roster, warrant)
    request = warrant["request"]
    name = request["target"]
    if sealed:
        link.execute(
            "INSERT INTO people (name, sealed) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET"
            " sealed = excluded.sealed, failed = 0, locked_until = NULL",
            (name, sealed),
        )
    if request["action"] == "person.remove":
        link.execute("DELETE FROM people WHERE name = ?", (name,))
    changed = next(one for one in roster.people if one.name == name)
    audit.record(
        link,
        who=who,
        what=request["action"],
        target=name,
        role=changed.role,
        public=changed.public,
        request=request["id"],
        roster=roster.digest,
    )


def sign_in(home: Home, name: str, passphrase: str, *, now: datetime) -> SeedSigner:
    """The person's key, opened with the passphrase. About half a second.

    Each of the first five wrong passphrases in a row is told at once; from then on the next try has to wait
    a minute, then two, four, up to an hour.

    Raises:
        NotAllowed: the passphrase is wrong, or a try came too early. NotFound: there is no such person.
    """
    one = person(home, name)
    with transaction(home) as link:
        # The try is counted before it is made, so that tries side by side cannot outrun the count.
        row = link.execute(
            "SELECT sealed, failed, locked_until FROM people WHERE name = ?", (name,)
        ).fetchone()
        if row is None:
            raise NotFound(f"The sealed key of {name} is missing.", "Restore the backup of the home folder.")
        if row["locked_until"] and now < datetime.fromisoformat(row["locked_until"]):
            raise NotAllowed(
                f"{name} is locked after {row['failed']} wrong passphrases in a row.",
                f"Try again after {row['locked_until'][:19]} UTC, or have the key reset:"
                f" cloister people reset {name}",
            )
        failed = row["failed"] + 1
        until = _text(now + wait_after(failed)) if failed >= FREE_TRIES else None
        link.execute("UPDATE people SET failed = ?, locked_until = ? WHERE name = ?", (failed, until, name))
    with _damaged():
        seed = unseal(row["sealed"], name, one.public, passphrase)
    try:
        with transaction(home) as link:
            if seed is None:
                audit.record(link, who=name, what="person.wrong-passphrase", target=name, in_a_row=failed)
            else:
                _reset(link, name)
            if seed is not None and row["failed"]:
                audit.record(link, who=name, what="person.sign-in", target=name, wrong_before=row["failed"])
    except LogDamaged:  # which two people repair, so they must be able to sign in; the count stands
        if seed is not None:
            with transaction(home) as link:
                _reset(link, name)
    if seed is None:
        raise NotAllowed(
            "The passphrase is wrong.",
            "Try again."
            if until is None
            else f"Try again after {until[:19]} UTC; {name} is locked until then.",
        )
    return SeedSigner(person=name, seed=seed)


def _reset(link: sqlite3.Connection, name: str) -> None:
    link.execute("UPDATE people SET failed = 0, locked_until = NULL WHERE name = ?", (name,))


def wait_after(failed: int) -> timedelta:
    """How long the next try has to wait after so many wrong ones in a row."""
    if failed < FREE_TRIES:
        return timedelta(0)
    return min(_FIRST_WAIT * 2 ** min(failed - FREE_TRIES, 16), _LONGEST_WAIT)


def change_passphrase(home: Home, signer: SeedSigner, passphrase: str, *, cost: Cost) -> None:
    """Seal a signed-in person's key under another passphrase; the key stays the same.

    Raises:
        ConfigWrong: the passphrase is easy to guess.
    """
    check_new(passphrase)
    sealed = seal(signer.person, signer.seed, passphrase, cost)
    with transaction(home) as link:
        link.execute("UPDATE people SET sealed = ? WHERE name = ?", (sealed, signer.person))
        audit.record(link, who=signer.person, what="person.passphrase", target=signer.person)


def states(home: Home) -> dict[str, dict[str, Any]]:
    """Wrong passphrases in a row and the end of the wait, by name."""
    with reading(home) as link:
        rows = link.execute("SELECT name, failed, locked_until FROM people")
        return {row["name"]: {"failed": row["failed"], "locked_until": row["locked_until"]} for row in rows}


def utc_now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


def _enter(link: sqlite3.Connection, roster: Roster, warrant: dict[str, Any]) -> None:
    link.execute(
        "INSERT INTO rosters (version, content, warrant) VALUES (?, ?, ?)",
        (roster.version, canonical.encode(roster.to_json()).decode(), canonical.encode(warrant).decode()),
    )


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except ValueError as problem:
        raise ConfigWrong(
            f"These people cannot run a site: {problem}.",
            f"A site has at least one {OFFICER} and one {SECURITY}, each with a name of their own.",
        ) from None


@contextmanager
def _damaged() -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError) as problem:
        raise ApplianceError(
            f"The list of people of this site was changed by hand: {problem}.",
            "Restore the backup of the home folder; `cloister audit tail` shows who changed what.",
        ) from None
