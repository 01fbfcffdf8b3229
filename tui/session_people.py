"""The door's part for people: who they are, what they may, what two of them are asked, emergencies."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from appliance.core import vaulted
from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong, NotAllowed
from appliance.core.home import Home
from appliance.core.sealing import check_unlocked, sealed_home
from appliance.security import audit
from appliance.security.passphrase import Cost, calibrated, check_new
from appliance.security.people import approvals, breakglass, changes, mode, persons, roles, signing
from appliance.security.people.persons import NewPerson
from appliance.security.people.roster import CHANGES
from appliance.security.people.rows import Asked
from appliance.security.people.signing import SeedSigner, Signer
from appliance.security.supply import baseline
from appliance.security.vault import box as vault
from appliance.security.vault import existing, slots, unlocking
from appliance.security.vault.following import Followed
from tui.session import Session
from tui.session_guard import acts, anyone
from tui.site_key import key_name, make_site_key

_TWO = tuple(action for action, right in roles.TABLE.items() if right.two)


@anyone
def initialise(
    home: Home,
    site: str,
    people: Sequence[NewPerson],
    *,
    single: bool,
    cost: Cost | None = None,
) -> dict[str, Any]:
    """Make a site of this home: with people who have roles, or (`single`) with one person.

    `people` with their passphrases can open its vault; a single person without one leaves it unsealed. The
    vault comes first and the list of people last, so roles are enforced only once all is there.

    Raises:
        ConfigWrong: see persons.found; or a site with people would become one without.
        Busy: a job runs, which would go on with plain files.
        InstallationAltered: an installed file is not what its package brought.
    """
    persons.check_site(site)
    if persons.founded(home):
        raise ConfigWrong("This site has its people already.", "Add more with `cloister people add NAME`.")
    if single:
        for person in people:
            persons.check_person(person.name, person.role)
            check_new(person.passphrase)
    else:
        persons.check_founders(people)
    baseline.record_first(home, who=people[0].name if people else "init")  # while one person rules
    master, replaced = _sealed(home, people, cost) if people else (None, 0)
    if single:
        mode.write_anchor(
            home, mode.Anchor(mode=mode.SINGLE, site=site, vault=vaulted.vault_of(home.path) or "")
        )
    else:
        persons.found(home, site, people, cost=cost or calibrated(), now=persons.utc_now())
    if master is not None:
        unlocking.start(home, master)
    if not home.identity.exists():
        make_site_key(home, people[0].name if people else "init", key_name(site), "site")
    return {
        "site": site,
        "mode": mode.mode(home),
        "sealed": bool(people),
        "were_plain": replaced,
        "people": [] if single else [{"name": one.name, "role": one.role} for one in people],
        "statement": mode.statement(home),
    }


@anyone
def sign_in(home: Home, name: str, passphrase: str) -> SeedSigner:
    """The person's key.

    Raises:
        NotAllowed: the passphrase is wrong, or it is too early to try again. NotFound: no such person.
    """
    if mode.mode(home) == mode.SINGLE:
        raise ConfigWrong("One person runs this site, so nobody signs in.", "Leave --as out.")
    return persons.sign_in(home, name, passphrase, now=persons.utc_now())


@acts("site.read")
def site_name(session: Session) -> str:
    """The name that the site was given; "" while it has none."""
    tied = mode.anchor(session.home)
    return tied.site if tied else ""


@acts("site.read")
def people(session: Session) -> dict[str, Any]:
    """Site, mode, statement, each person with role, key and wrong passphrases; emergencies, red first."""
    roster = persons.load(session.home)
    tied = mode.anchor(session.home)
    told: dict[str, Any] = {
        "site": tied.site if tied else None,
        "mode": mode.mode(session.home),
        "statement": mode.statement(session.home),
        "you": session.who,
        "people": [],
        "emergencies": [],
    }
    if roster is None:
        return told
    breakglass.settle(session.home)
    states = persons.states(session.home)
    told["people"] = [one.to_json() | states.get(one.name, {}) for one in roster.people]
    cases = breakglass.cases(session.home)
    told["emergencies"] = [asdict(case) for case in sorted(cases, key=lambda case: case.state == "reviewed")]
    return told


@acts("site.read")
def alarms(session: Session) -> list[str]:
    """What is red at this site: emergencies that no privacy officer has reviewed."""
    return [
        f"RED: {case.person} acted as operator in emergency {case.id} ({case.state}); not reviewed yet."
        for case in breakglass.open_cases(session.home)
    ]


@anyone
def rights() -> list[dict[str, Any]]:
    """The table of rights: action, words, roles, whether two people are needed."""
    return [
        {
            "action": right.action,
            "words": right.words,
            "roles": [role for role in roles.ROLES if role in right.may],
            "two_people": right.two,
        }
        for right in roles.TABLE.values()
    ]


@acts("person.add")
def add(session: Session, name: str, role: str, passphrase: str) -> Asked:
    """Ask for a new person with a passphrase of their own, which will also unlock a sealed site.

    Raises:
        Locked: the site is sealed and locked. Others as changes.propose_person.
    """
    new = NewPerson(name=name, role=role, passphrase=passphrase)
    slot = _held(session.home, new)
    return changes.propose_person(session.home, _signer(session), new, cost=calibrated(), slot=slot)


@acts("person.role")
def give_role(session: Session, name: str, role: str) -> Asked:
    """Ask for another role of a person. Raises as changes.propose_role."""
    return changes.propose_role(session.home, _signer(session), name, role)


@acts("person.remove")
def remove(session: Session, name: str) -> Asked:
    """Ask for a person to be removed, and with them their way to unlock a sealed site.

    Raises:
        Locked: the site is sealed and locked. ConfigWrong: nobody else can unlock it. Others as
            changes.propose_removal.
    """
    _check_slots(session.home, "person.remove", name)
    return changes.propose_removal(session.home, _signer(session), name)


@acts("person.reset")
def reset(session: Session, name: str, passphrase: str) -> Asked:
    """Ask for a new key and passphrase of a person, also for unlocking. Raises as `add`."""
    new = NewPerson(name=name, role="", passphrase=passphrase)
    slot = _held(session.home, new)
    return changes.propose_reset(session.home, _signer(session), new, cost=calibrated(), slot=slot)


@acts("person.passphrase")
def change_passphrase(session: Session, old: str, new: str) -> None:
    """Another passphrase for who is signed in, of the vault too; the key stays.

    Raises:
        NotAllowed, ConfigWrong: as persons.sign_in and persons.change_passphrase.
    """
    signer = persons.sign_in(session.home, _signer(session).person, old, now=persons.utc_now())
    check_new(new)
    if signer.person in {slot["name"] for slot in _slots(session.home)}:
        with suppress(slots.PassphraseWrong):  # as when this was cut off after the vault's own
            slots.change_passphrase(session.home, signer.person, old, new)
    persons.change_passphrase(session.home, signer, new, cost=calibrated())


@acts("site.read")
def requests(session: Session, *, every: bool = False) -> list[Asked]:
    """What two people are asked and waits for an answer or its use; `every` gives also what is over."""
    if mode.mode(session.home) == mode.SINGLE:
        return []
    return approvals.pending(session.home, every=every)


@acts("site.read")
def request(session: Session, request_id: str) -> Asked:
    """One request with all that its approvers sign. Raises NotFound."""
    return approvals.show(session.home, request_id)


@acts(*_TWO)
def answer(session: Session, request_id: str, *, yes: bool) -> Asked:
    """Agree to or refuse a request, signed. Who may unlock a sealed site follows a change of people at once.

    Raises:
        Locked, ConfigWrong: as `remove`. Others as approvals.vote.
    """
    home = session.home
    request = approvals.show(home, request_id).request
    if yes and request["action"] in CHANGES:
        _check_slots(home, request["action"], request["target"])
    asked = approvals.vote(home, request_id, _signer(session), yes=yes)
    if asked.state == "used" and request["action"] in CHANGES:
        follow_people(session, held=changes.slot_of(home, request_id))
    return asked


@acts("emergency.start")
def break_glass(session: Session, reason: str, minutes: int) -> breakglass.Case:
    """Act as operator for some minutes. Raises as breakglass.start."""
    return breakglass.start(session.home, _signer(session), reason, minutes=minutes)


@acts("emergency.start")
def end_emergency(session: Session) -> None:
    """End one's own emergency before its time. Raises NotFound."""
    breakglass.end(session.home, _signer(session).person)


@acts("emergency.review")
def review(session: Session, case_id: str) -> breakglass.Case:
    """Sign that what was done in an emergency was looked at. Raises as breakglass.review."""
    return breakglass.review(session.home, _signer(session), case_id)


@anyone
def fingerprint(public: str) -> str:
    """The first 16 hex digits of the digest of a key, in fours."""
    short = signing.digest({"public": public})[:16]
    return " ".join(short[at : at + 4] for at in range(0, 16, 4))


@anyone
def follow_people(session: Session, *, held: str = "") -> Followed:
    """Have who may unlock a sealed site be who is listed; see vault/following.py. Whatever calls this, it
    does no more than what two people have signed.

    Raises:
        Locked: the site is locked. ConfigWrong: the key agent refuses.
    """
    home = session.home
    if mode.mode(home) == mode.SINGLE or not sealed_home(home.path):
        return Followed()
    with transaction(home) as link:
        told = unlocking.follow(home, held)
        for what, names in (("vault.add", told.added), ("vault.remove", told.removed)):
            for name in names:
                audit.record(link, who=session.who, what=what, target=name)
    return told


def _held(home: Home, new: NewPerson) -> str:
    """The way to unlock that a person will have; "" where nothing is sealed."""
    if not sealed_home(home.path):
        return ""
    check_new(new.passphrase)
    return unlocking.hold(home, new.name, new.passphrase, new.seed)


def _check_slots(home: Home, action: str, name: str) -> None:
    """Check that the vault can follow a change of people.

    Raises:
        Locked: it is sealed and locked. ConfigWrong: it would open for nobody.
    """
    if action == "person.role" or not sealed_home(home.path):
        return
    check_unlocked(home.path)
    able = {slot["name"] for slot in slots.people(home) if slot["kind"] == slots.PASSPHRASE}
    if action == "person.remove" and able == {name}:
        raise ConfigWrong(
            f"{name} is the last who can unlock this site.",
            f"Let another do so first: cloister vault add NAME --as {name}",
        )


def _signer(session: Session) -> Signer:
    """The key of who is signed in. Raises NotAllowed where one person runs the site."""
    if session.actor.signer is None or session.actor.how != "signed-in":
        raise NotAllowed("This site has one person and no roles.", "Give it people: cloister init.")
    return session.actor.signer


def _sealed(home: Home, people: Sequence[NewPerson], cost: Cost | None) -> tuple[bytes, int]:
    """The master key of a vault that these people can open, with all plain files in it, and how many there
    were; resumes."""
    first, *others = people
    if vault.exists(home.path):
        master = slots.open_slot(home, first.name, first.passphrase).master
    else:
        master = slots.create(home, first.name, first.passphrase, cost=cost)
    held = {slot["name"] for slot in _slots(home)}
    for person in others:
        if person.name not in held:
            slots.add_slot(home, master, person.name, person.passphrase, cost=cost)
    return master, existing.seal_existing(home, master)


def _slots(home: Home) -> list[dict[str, Any]]:
    return slots.people(home) if vault.exists(home.path) else []
