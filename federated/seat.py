"""A site's side of the rounds, on a folder: what it answers to a request, once and only once.

It knows no link, as course.py. A round is answered from one adapter only: asked again, the site sends the
very bytes it sent before, and asked from another adapter it refuses (two answers to one round would let
their difference be taken). What goes wrong here leaves as a code, never as text.

    agreement.toml, agreement.sig    the newest version of the federation that was accepted
    answers/0007.left                what packing left over, float32; written before the update
    answers/0007.update              the answer to round 7; written last
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from appliance.core.errors import ApplianceError, BudgetSpent, NoMemory, NoRoom
from appliance.core.files import write_bytes
from appliance.core.reading import read_bytes
from federated import description
from federated.description import Federation
from federated.layout import Array, Layout, vector_sha256
from federated.packing import with_feedback
from federated.policy import Policy, Reason, objections
from federated.secagg.federation import SiteKeys
from federated.update import Statement, opened_update, sealed_update

_KEPT = 3  # answers


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a coordinator asks of a site: the signed agreement, the round, the adapter it begins with."""

    agreement: bytes
    signature: bytes
    round: int
    cohort: int
    adapter: Array


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What training gave: the change of the adapter, and on how many units."""

    change: Array
    units: int


@dataclass(frozen=True, kw_only=True)
class Seat:
    """A site in one federation.

    `policy` is read anew for each round. `train(adapter, round)` charges the site's own ledger, then trains;
    `loss(adapter)` is the loss on its validation records. `unit` is what its dataset protects. `own_versions`
    says whether code and base here are those of the agreement. `keys` are for secure rounds (secure/seat.py).
    """

    home: Path
    name: str
    layout: Layout
    policy: Callable[[], Policy]
    unit: str
    sign: Callable[[bytes], bytes]
    train: Callable[[Array, int], Learnt]
    loss: Callable[[Array], float]
    own_versions: Callable[[Federation], Reason | None]
    keys: SiteKeys | None = None


def join(seat: Seat, agreement: bytes, signature: bytes, key: str) -> Federation:
    """Accept the first version; `key` is the coordinator's, compared by its words.

    Raises:
        TrustRefused, ConfigWrong: see description.opened.
    """
    federation = description.opened(agreement, signature, key)
    keep_agreement(seat.home, agreement, signature)
    return federation


def answer(seat: Seat, request: Request, *, now: datetime) -> bytes | Reason:
    """The signed update for a round, or why there is none.

    Raises:
        NoRoom, OSError: the disk; nothing was sent.
    """
    try:
        federation = agreed(seat, request.agreement, request.signature, now)
    except ApplianceError:
        return "agreement"
    if federation.rounds.secure:
        return "plain"  # a coordinator that agreed to see sums alone asks for the update itself
    parent = vector_sha256(seat.layout, request.adapter)
    if before := _answered(seat, request.round):
        statement, _, _ = opened_update(before)
        return before if statement.parent == parent else "again"
    done = [int(path.stem) for path in _folder(seat).glob("*.update")]
    if done and request.round < max(done):
        return "again"
    if wrong := seat.own_versions(federation):
        return wrong
    try:
        policy = seat.policy()
    except ApplianceError:
        return "paused"  # a policy that cannot be read allows nothing
    if no := objections(
        policy,
        federation,
        number=request.round,
        cohort=request.cohort,
        done=rounds_done(seat),
        unit=seat.unit,
        now=now,
    ):
        return no[0]
    found = learnt(seat, policy, request)
    if not isinstance(found, tuple):
        return found
    return _sealed(seat, federation, request, parent, *found)


def learnt(seat: Seat, policy: Policy, request: Request) -> tuple[Learnt, float] | Reason:
    """What a round taught, and the loss that the coordinator is told (NaN for none); or why there is none."""
    told = policy.tell_loss or policy.worst_loss is not None
    loss = seat.loss(request.adapter) if told else math.nan
    if policy.worst_loss is not None and not loss <= policy.worst_loss:
        return "worse"
    try:
        found = seat.train(request.adapter, request.round)
    except BudgetSpent:
        return "budget"
    except NoRoom as full:
        return "failed" if isinstance(full, NoMemory) else "disk"
    except ApplianceError:
        return "failed"
    return found, loss if policy.tell_loss else math.nan


def _sealed(
    seat: Seat, federation: Federation, request: Request, parent: str, learnt: Learnt, loss: float
) -> bytes | Reason:
    rounds = federation.rounds
    try:
        body, left = with_feedback(learnt.change, _left(seat), rounds.packing, rounds.clip_bound)
    except ValueError:
        return "failed"
    statement = Statement(
        federation=description.digest(request.agreement),
        round=request.round,
        site=seat.name,
        parent=parent,
        packing=rounds.packing,
        units=learnt.units,
        loss=round(1e6 * loss) if math.isfinite(loss) else -1,
        body=hashlib.sha256(body).hexdigest(),
    )
    content = sealed_update(statement, body, seat.sign)
    folder = _folder(seat)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f"{request.round:04}.left", left.astype("<f4").tobytes())
    count_round(seat)
    write_bytes(folder / f"{request.round:04}.update", content)
    for old in sorted(folder.glob("*.update"))[:-_KEPT]:
        old.with_suffix(".left").unlink(missing_ok=True)
        old.unlink()
    return content


def agreed(seat: Seat, agreement: bytes, signature: bytes, now: datetime) -> Federation:
    """The version that a round goes by; a newer one that may follow ours becomes ours.

    Raises:
        TrustRefused, ConfigWrong: it may not (description.successor), or nobody signed it.
    """
    held = description.parsed(read_bytes(seat.home / "agreement.toml"))
    asked = description.opened(agreement, signature, held.coordinator_key)
    description.successor(held, asked, now)
    if asked.version > held.version:
        keep_agreement(seat.home, agreement, signature)
    return asked


def keep_agreement(home: Path, agreement: bytes, signature: bytes) -> None:
    """Make a version that was checked the newest of a seat's folder."""
    home.mkdir(parents=True, exist_ok=True)
    write_bytes(home / "agreement.sig", signature)
    write_bytes(home / "agreement.toml", agreement)


def rounds_done(seat: Seat) -> int:
    """In how many rounds the site took part."""
    return rounds_at(seat.home)


def rounds_at(home: Path) -> int:
    """The same, for a seat's folder."""
    path = home / "rounds"
    return int(read_bytes(path)) if path.exists() else 0


def count_round(seat: Seat) -> None:
    """One more."""
    seat.home.mkdir(parents=True, exist_ok=True)
    write_bytes(seat.home / "rounds", str(rounds_done(seat) + 1).encode())


def _answered(seat: Seat, number: int) -> bytes | None:
    path = _folder(seat) / f"{number:04}.update"
    return read_bytes(path) if path.exists() else None


def _left(seat: Seat) -> Array | None:
    """What the last answered round left over; one that was not answered in the end does not count."""
    done = sorted(_folder(seat).glob("*.update"))
    if not done:
        return None
    return np.frombuffer(read_bytes(done[-1].with_suffix(".left")), "<f4").astype(np.float32)


def _folder(seat: Seat) -> Path:
    return seat.home / "answers"
