"""A site's side of a secure attempt, on its folder: the three answers, each given once.

What a site learnt in a round is masked anew in every attempt at it, until the site has helped to open one;
after that it takes no part in the round again, so that no two sums differ by a single site. Length, numbers
and norm are seen to here, before masking, for nobody can look at them afterwards: a change that is not finite
never leaves, and one above the clip bound is clipped.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from appliance.core.errors import ApplianceError, ConfigWrong, DataRejected
from federated import description, messages, policy, seat
from federated.layout import vector_sha256
from federated.policy import Reason
from federated.seat import Seat
from federated.secagg import offer, site
from federated.secagg.federation import Federation, SiteKeys
from federated.secagg.lattice import Lattice
from federated.secagg.refused import Refused
from federated.secagg.request import read_request
from federated.secagg.state import State
from federated.secure import pinned, stored, wire
from federated.secure.stored import Left, Vector
from federated.update import MASKED, Statement, sealed_update

_AT_OPENING: tuple[Reason, ...] = ("ended", "paused", "vetoed")


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """One question, as far as it is understood; `member` is the agreement as its members have it pinned."""

    agreement: description.Federation
    digest: str
    member: Federation
    lattice: Lattice
    keys: SiteKeys
    state: State
    round: int
    attempt: int
    head: dict[str, Any]
    body: bytes


def answer(held: Seat, head: dict[str, Any], body: bytes, *, now: datetime) -> bytes | str:
    """What the site sends, or the code of its refusal; `head` and `body` are as wire.py has them.

    Raises:
        ValueError, KeyError, TypeError: it is no question. NoRoom, OSError: the disk; nothing was sent.
    """
    try:
        agreement = seat.agreed(held, head["agreement"], head["signature"], now)
    except ApplianceError:
        return "agreement"
    if not agreement.rounds.secure or held.keys is None:
        raise ValueError("no secure rounds were agreed on")
    if wrong := held.own_versions(agreement):
        return wrong
    try:
        wanted = held.policy().min_cohort
    except ApplianceError:
        return "paused"  # a policy that cannot be read allows nothing
    digest = description.digest(head["agreement"])
    try:
        member = pinned.federation_of(agreement, digest, wanted)
    except ConfigWrong:
        return "cohort"
    asked = _Asked(
        agreement=agreement,
        digest=digest,
        member=member,
        lattice=pinned.lattice_of(agreement, held.layout.values),
        keys=held.keys,
        state=stored.state_of(held.home, digest, held.name),
        round=int(head["round"]),
        attempt=int(head["attempt"]),
        head=head,
        body=body,
    )
    try:
        return _STEPS[head["step"]](held, asked, now)
    except Refused as no:
        return no.code
    except DataRejected:
        return "failed"


def _keys(held: Seat, asked: _Asked, now: datetime) -> bytes | str:
    plan = wire.plan_of(asked.member, asked.body)
    if before := stored.answered(held.home, plan.round, wire.KEYS, asked.body):
        return before
    if asked.round <= stored.revealed(held.home):
        return "again"
    if no := _objections(held, asked, len(plan.roster), now):
        return no[0]
    return _advertise(held, asked, asked.body, asked.state)


def _train(held: Seat, asked: _Asked, now: datetime) -> bytes | str:
    message, body = wire.parted(asked.body)
    if before := stored.answered(held.home, asked.attempt, wire.TRAIN, message):
        return before
    packing = asked.agreement.rounds.packing
    request = messages.request_of(asked.head, body, home=held.home, layout=held.layout, packing=packing)
    if request is None:
        return messages.BEHIND
    parent = vector_sha256(held.layout, request.adapter)
    asked_of = read_request(asked.state, asked.keys, asked.member, asked.lattice, message, about=parent).asked
    if asked.attempt != asked_of.plan.round or asked.round <= stored.revealed(held.home):
        return "again"
    before_it = stored.vector(held.home)
    if before_it is not None and (
        asked.round < before_it.round or (asked.round == before_it.round and before_it.parent != parent)
    ):
        return "again"
    if no := _objections(held, asked, len(asked_of.cohort), now):
        return no[0]
    if before_it is not None and before_it.round == asked.round:
        learnt = before_it
    else:
        found = _learnt(held, replace(request, cohort=len(asked_of.cohort)), parent)
        if not isinstance(found, Vector):
            return found
        learnt = found
    weight = pinned.weight_of(asked.agreement, learnt.units)
    after, said = site.masked(
        asked.state,
        asked.keys,
        asked.member,
        asked.lattice,
        message,
        learnt.integers(asked.digest, asked.lattice, weight),
        weight=weight,
        about=parent,
    )
    statement = Statement(
        federation=asked.digest,
        round=asked.round,
        site=held.name,
        parent=parent,
        packing=MASKED,
        units=learnt.units,
        loss=learnt.loss,
        body=hashlib.sha256(said).hexdigest(),
    )
    content = sealed_update(statement, said, held.sign)
    stored.keep_left(held.home, Left(attempt=asked.attempt, round=asked.round))
    stored.keep_state(held.home, after)
    stored.keep_answer(held.home, asked.attempt, wire.TRAIN, message, content)
    messages.keep(held.home, request.adapter)
    return content


def _open(held: Seat, asked: _Asked, now: datetime) -> bytes | str:
    message, plan = wire.parted(asked.body)
    said = stored.answered(held.home, asked.attempt, wire.OPEN, message)
    if said is None:
        last = stored.left(held.home)
        if last is None or last.attempt != asked.attempt:
            return "again"
        least = asked.member.minimum  # against which site.reveal counts the survivors
        if no := [one for one in _objections(held, asked, least, now) if one in _AT_OPENING]:
            return no[0]
        after, said = site.reveal(asked.state, asked.keys, asked.member, message)
        stored.keep_revealed(held.home, last.round)
        stored.keep_state(held.home, after)
        stored.keep_answer(held.home, asked.attempt, wire.OPEN, message, said)
        asked = replace(asked, state=after)
    return wire.joined(said, _next(held, asked, plan))


_STEPS = {wire.KEYS: _keys, wire.TRAIN: _train, wire.OPEN: _open}


def _advertise(held: Seat, asked: _Asked, message: bytes, state: State) -> bytes:
    plan = wire.plan_of(asked.member, message)
    after, said = offer.advertise(state, asked.keys, asked.member, plan)
    stored.keep_state(held.home, after)
    stored.keep_answer(held.home, plan.round, wire.KEYS, message, said)
    return said


def _next(held: Seat, asked: _Asked, message: bytes) -> bytes:
    """The advertisement for the attempt after this one; without it the coordinator asks for it then."""
    if not message:
        return b""
    try:
        plan = wire.plan_of(asked.member, message)
        before = stored.answered(held.home, plan.round, wire.KEYS, message)
        return before or _advertise(held, asked, message, asked.state)
    except (Refused, ValueError):
        return b""


def _objections(held: Seat, asked: _Asked, cohort: int, now: datetime) -> list[Reason]:
    """The site's own no, as in any round; one that it has learnt in already counts once."""
    learnt = stored.vector(held.home)
    counted = asked.round <= stored.revealed(held.home) or (
        learnt is not None and learnt.round == asked.round
    )
    return policy.objections(
        held.policy(),
        asked.agreement,
        number=asked.round,
        cohort=cohort,
        done=seat.rounds_done(held) - counted,
        unit=held.unit,
        now=now,
    )


def _learnt(held: Seat, request: seat.Request, parent: str) -> Vector | Reason:
    found = seat.learnt(held, held.policy(), request)
    if not isinstance(found, tuple):
        return found
    learnt, loss = found
    one = Vector(
        round=request.round,
        parent=parent,
        units=learnt.units,
        loss=round(1e6 * loss) if math.isfinite(loss) else -1,
        seed=stored.seed(),
        change=learnt.change,
    )
    stored.keep_vector(held.home, one)
    seat.count_round(held)
    return one
