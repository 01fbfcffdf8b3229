"""The coordinator's side of a secure attempt, on its folder: begin, keys, vectors, reveals, the sum.

As federated/course.py it knows no link and no clock. It never sees a change: what it stores of a site is
masked, and what it opens is the sum of the survivors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from federated import checkpoint, course, rounds
from federated.admit import Admitted, Refused
from federated.checkpoint import Record
from federated.course import Course
from federated.rounds import Round
from federated.secagg import coordinator, refused, unmask
from federated.secagg import lattice as lattices
from federated.secagg.context import Asked
from federated.secagg.coordinator import Advertised, Gathered
from federated.secagg.federation import Federation, Plan
from federated.secagg.lattice import Lattice
from federated.secagg.messages import opened
from federated.secure import attempt as attempts
from federated.secure import gate, pinned, wire
from federated.secure.attempt import Attempt
from federated.update import opened_update


def member(held: Course) -> Federation:
    """The agreement as its members have it pinned.

    Raises:
        ConfigWrong: it has too few sites.
    """
    return pinned.federation_of(held.federation, held.digest)


def lattice(held: Course) -> Lattice:
    """The integers that changes become."""
    return pinned.lattice_of(held.federation, held.layout.values)


def plan(held: Course, there: Iterable[str], *, now: float) -> Plan:
    """A plan of a new attempt with the sites that are `there`.

    Raises:
        Refused, ConfigWrong: they are too few.
    """
    pinned_now = member(held)
    coordinator.plan_round(pinned_now, 1, there)  # before a number is spent
    return coordinator.plan_round(pinned_now, attempts.next_number(held.home, now), there)


def begin(
    held: Course, state: Round, planned: Plan, *, now: float, patience: float, counted: bool
) -> tuple[Round, Attempt]:
    """A fresh attempt at a round: whatever was sent for the one before is not used. `counted`: see
    rounds.begun_anew. Keys are waited for `patience` seconds."""
    attempts.clear(held.home, state.number)
    seconds = 60 * held.federation.rounds.deadline_minutes
    after = rounds.begun_anew(state, planned.roster, now=now, seconds=seconds, counted=counted)
    checkpoint.keep_round(held.home, after)
    made = Attempt(
        number=planned.round,
        roster=planned.roster,
        threshold=planned.threshold,
        deadline=now + min(patience, seconds),
    )
    attempts.keep(held.home, state.number, made)
    return after, made


def later(held: Course, state: Round, *, now: float) -> None:
    """Wait once more for sites: too few are there to be asked."""
    seconds = 60 * held.federation.rounds.deadline_minutes
    checkpoint.keep_round(held.home, replace(state, deadline=now + seconds, asked=state.asked + 1))


def has(held: Course, number: int, site: str, content: bytes) -> bool:
    """Whether a site has sent just this before."""
    folders: tuple[attempts.Folder, ...] = ("keys", "updates")
    return any(
        site in attempts.sites(held.home, number, folder)
        and attempts.read(held.home, number, folder, site) == content
        for folder in folders
    )


def take_keys(held: Course, number: int, planned: Plan, site: str, content: bytes) -> bool:
    """Whether this is what `site` advertises for the plan; then it is stored."""
    try:
        coordinator.advertised(member(held), planned, site, content)
    except refused.Refused:
        return False
    attempts.put(held.home, number, "keys", site, content)
    return True


def ask(held: Course, state: Round, one: Attempt, *, now: float) -> tuple[Round, Attempt]:
    """Who has advertised is the cohort; who has not is late."""
    cohort = tuple(sorted(attempts.sites(held.home, state.number, "keys") - set(state.refused)))
    for site in set(one.roster) - set(cohort):
        state = state if site in state.refused else rounds.with_refusal(state, site, "late")
    state = replace(state, deadline=now + 60 * held.federation.rounds.deadline_minutes)
    checkpoint.keep_round(held.home, state)
    after = replace(one, cohort=cohort, deadline=state.deadline)
    attempts.keep(held.home, state.number, after)
    return state, after


def offers(held: Course, state: Round, one: Attempt) -> dict[str, Advertised]:
    """What the cohort advertised."""
    pinned_now = member(held)
    return {
        site: coordinator.advertised(
            pinned_now, one.plan, site, attempts.read(held.home, state.number, "keys", site)
        )
        for site in one.cohort
    }


def asked(held: Course, state: Round, one: Attempt) -> Asked:
    """What the cohort is asked."""
    space = lattice(held)
    return Asked(plan=one.plan, cohort=one.cohort, about=state.parent, bits=space.bits, values=space.values)


def receive(held: Course, state: Round, one: Attempt, content: bytes) -> tuple[Round, Admitted | Refused]:
    """Take one masked vector."""
    found = gate.admit(
        content,
        held.expected(state),
        held.members,
        state.admitted,
        agreement=held.federation,
        federation=member(held),
        lattice=lattice(held),
        asked=asked(held, state, one),
    )
    return course.judged(held, state, content, found)


def gathered(held: Course, state: Round, one: Attempt) -> Gathered:
    """The masked sum of what was admitted, vector by vector."""
    return coordinator.gather(member(held), lattice(held), asked(held, state, one), _vectors(held, state))


def fix(held: Course, state: Round, one: Attempt, survivors: Iterable[str], *, until: float) -> Attempt:
    """From now on the sum is that of these sites."""
    after = replace(one, survivors=tuple(sorted(survivors)), deadline=until)
    attempts.keep(held.home, state.number, after)
    return after


def request(held: Course, state: Round, one: Attempt, site: str, offered: dict[str, Advertised]) -> bytes:
    """The train message of a site."""
    return coordinator.train_message(member(held), asked(held, state, one), offered, site)


def question(
    held: Course, state: Round, one: Attempt, sums: Gathered, ahead: Plan | None, site: str
) -> bytes:
    """What a survivor is asked, with the plan of the next attempt."""
    pinned_now = member(held)
    message = coordinator.unmask_message(pinned_now, asked(held, state, one), sums, site)
    return wire.joined(message, wire.plan_message(pinned_now, ahead) if ahead else b"")


def take_reveal(held: Course, number: int, site: str, content: bytes) -> bool:
    """Whether `site` signed it; then it is stored. What it is worth is seen when the sum is opened."""
    try:
        opened("reveal", content, member(held).members[site].sign)
    except (ValueError, KeyError):
        return False
    attempts.put(held.home, number, "reveals", site, content)
    return True


def close(held: Course, state: Round, one: Attempt, sums: Gathered) -> tuple[Record, dict[str, str]]:
    """Open the sum and commit the round; and whose shares were wrong, and why.

    Raises:
        secagg.refused.Refused: too few right answers are there, or a site dealt wrong shares.
    """
    space = lattice(held)
    there = sorted(attempts.sites(held.home, state.number, "reveals"))
    answers = ((site, attempts.read(held.home, state.number, "reveals", site)) for site in there)
    found = unmask.unmask(member(held), asked(held, state, one), offers(held, state, one), sums, answers)
    change = lattices.decode(found.total, space, weight=found.weight).astype(np.float32)
    counted = {site: pinned.units_of(held.federation, weight) for site, weight in sums.weights.items()}
    record = course.close_secure(held, state, counted, change)
    attempts.finish(held.home, state.number)
    return record, dict(found.wrong)


def skip(held: Course, state: Round, one: Attempt, wrong: dict[str, str]) -> Record:
    """Give a round up whose sum cannot be opened: the adapter stays, the next round begins."""
    record = course.skip(held, state, dict.fromkeys(one.survivors, "unopened") | wrong)
    attempts.finish(held.home, state.number)
    return record


def _vectors(held: Course, state: Round) -> Iterator[tuple[str, memoryview]]:
    for site in sorted(state.admitted):
        _, body, _ = opened_update(attempts.read(held.home, state.number, "updates", site))
        yield site, body
