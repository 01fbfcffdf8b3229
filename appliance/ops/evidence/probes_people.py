"""Probes of people: rights, one key a person, emergencies, lockout, two signatures, passphrases."""

from __future__ import annotations

import json
from typing import Any

from appliance.core.db import reading
from appliance.ops.evidence.shape import Found, Look, absent, count, lacks, some, supports
from appliance.security.log.entries import told
from appliance.security.passphrase import read_cost
from appliance.security.people import approvals, breakglass, guard, persons
from appliance.security.people.persons import FREE_TRIES, wait_after
from appliance.security.people.roles import OFFICER, ROLES, SECURITY, TABLE
from appliance.security.people.roster import Person
from appliance.security.vault import box

_ONE = "Single-person mode: one person may do everything here"
_LEAVES = ("bundle.export", "feedback.export")


def roles(look: Look) -> Found:
    """Every role asked for every action, and nobody asked for every action."""
    if look.single:
        return lacks(f"{_ONE}, so no role keeps anybody from anything.")
    listed = persons.load(look.home)
    nobody = guard.identify(look.home)
    wrong = [action for action in TABLE if guard.why_not(look.home, nobody, action) is None]
    for role in ROLES:
        person = Person(name="probe", role=role, public="0" * 64, since="")
        wrong += [
            f"{role}: {action}"
            for action, row in TABLE.items()
            if (guard.may(person, action) is None) != (role in row.may)
        ]
    wrong += [f"{SECURITY}: {action}" for action in _LEAVES if SECURITY in TABLE[action].may]
    asked = len(TABLE) * (len(ROLES) + 1)
    if wrong or listed is None:
        return lacks(f"The answer is not that of the table of rights for {some(wrong)}.", asked=asked)
    held = {role: sum(one.role == role for one in listed.here) for role in ROLES}
    counted = ", ".join(f"{number} {role}" for role, number in held.items())
    return supports(
        f"{count(len(TABLE), 'action')} asked for each of {len(ROLES)} roles and for nobody:"
        f" {asked} answers as the table of rights has them. People here: {counted}; every change of the list"
        " of people carries the signatures of those who agreed to it.",
        asked=asked,
        people=held,
    )


def unique_ids(look: Look) -> Found:
    """One name and one signing key for each person, sealed under that person's passphrase."""
    if look.single:
        return lacks(f"{_ONE}; nobody signs in, and the log has the name of the computer account.")
    listed, sealed = persons.load(look.home), persons.states(look.home)
    here = listed.here if listed else ()
    without = [one.name for one in here if one.name not in sealed]
    shared = len({one.public for one in here}) < len(here) or len({one.name for one in here}) < len(here)
    if without or shared or not here:
        return lacks(f"No sealed key of their own: {some(without) or 'two people share one'}.")
    return supports(
        f"{len(here)} people with {len(here)} names and {len(here)} signing keys, each sealed under that"
        " person's passphrase; no name and no key is shared.",
        people=len(here),
    )


def emergency(look: Look) -> Found:
    """Break-glass: there for everybody, and red until reviewed."""
    if look.single:
        return absent("One person may do everything at any time, so there is no emergency access to give.")
    cases = breakglass.cases(look.home, now=look.now)
    lost = {entry["target"] for entry in told(look.home, "emergency.start")} - {case.id for case in cases}
    if lost:
        return lacks(f"The log tells of emergencies of which nothing else is left: {some(sorted(lost))}.")
    unseen = [case for case in cases if case.state == "over"]
    if unseen:
        return lacks(
            f"{count(len(unseen), 'emergency use')} without an officer's review: "
            f"{some([f'{case.id} by {case.person}' for case in unseen])}.",
            uses=len(cases),
            unreviewed=len(unseen),
        )
    running = sum(case.state == "running" for case in cases)
    return supports(
        f"Anybody here may act as operator for at most {breakglass.LONGEST} minutes, once, until a privacy"
        f" officer has reviewed it. Used {len(cases)} times"
        + (f", {running} of them running now." if running else "; all were reviewed." if cases else "."),
        uses=len(cases),
        unreviewed=0,
    )


def lockout(look: Look) -> Found:
    """What wrong passphrases cost."""
    if look.single and not box.exists(look.home.path):
        return lacks("No passphrase is asked here, so there is nothing to lock.")
    if look.single:
        return supports("After three wrong passphrases in a row each further try waits, up to 15 minutes.")
    first = int(wait_after(FREE_TRIES).total_seconds())
    states = persons.states(look.home)
    locked = [
        name for name, one in states.items() if one["locked_until"] and one["locked_until"] > _text(look)
    ]
    if first <= 0 or wait_after(FREE_TRIES + 4) <= wait_after(FREE_TRIES):
        return lacks("Wrong passphrases cost no wait.")
    now = f"locked now: {some(locked)}" if locked else "nobody is locked now"
    return supports(
        f"After {FREE_TRIES} wrong passphrases in a row each further try waits {first} s, then twice as long"
        f" each time, up to an hour; {now}.",
        locked=len(locked),
    )


def two_people(look: Look) -> Found:
    """What left or was changed by two signatures, checked again."""
    if look.single:
        return lacks(f"{_ONE}; no second person agrees to what leaves or is set.")
    rows = [row for row in TABLE.values() if row.two]
    used = [one for one in approvals.pending(look.home, every=True) if one.state == "used"]
    soft = [row.action for row in rows if OFFICER not in row.may]
    if soft:
        return lacks(f"No privacy officer is needed for {some(soft)}.")
    if bare := approvals.unproven(look.home):
        return lacks(f"Used without the signatures of two people: request {some(bare)}.", used=len(used))
    return supports(
        f"{count(len(rows), 'action')} (exports, raised budgets, training without privacy, people, trust,"
        f" removals) need two people, one of them a {OFFICER}. Used so far:"
        f" {count(len(used), 'request')}.",
        actions=len(rows),
        used=len(used),
    )


def passphrase(look: Look) -> Found:
    """Argon2id of every passphrase, from what is stored."""
    costs = _costs(look)
    if not costs:
        return lacks("No passphrase protects anything here.")
    weak = []
    for name, held in costs:
        try:
            read_cost(held)
        except ValueError as problem:
            weak.append(f"{name} ({problem})")
    if weak:
        return lacks(f"Argon2id below the floor, or damaged: {some(weak)}.")
    least = min(costs, key=lambda one: one[1]["memory"] * one[1]["passes"])[1]
    return supports(
        f"{count(len(costs), 'stored passphrase')}, each Argon2id at or above the second option of RFC 9106;"
        f" the cheapest has {least['memory'] >> 10} MiB, {least['passes']} passes, {least['lanes']} lanes.",
        passphrases=len(costs),
        memory_kib=least["memory"],
        passes=least["passes"],
        lanes=least["lanes"],
    )


def _costs(look: Look) -> list[tuple[str, Any]]:
    with reading(look.home) as link:
        rows = link.execute("SELECT name, sealed FROM people ORDER BY name").fetchall()
    found = [(f"{row['name']}'s key", json.loads(row["sealed"]).get("cost")) for row in rows]
    if box.exists(look.home.path):
        slots = box.read(look.home.path)[0].slots
        found += [(f"{one['name']}'s slot", one["cost"]) for one in slots if one["kind"] == "passphrase"]
    return found


def _text(look: Look) -> str:
    return look.now.isoformat(timespec="microseconds")


PROBES = {
    "roles": roles,
    "unique ids": unique_ids,
    "emergency": emergency,
    "lockout": lockout,
    "two people": two_people,
    "passphrase": passphrase,
}
