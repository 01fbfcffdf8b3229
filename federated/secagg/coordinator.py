"""The coordinator's side: it plans a round, asks, and gathers the masked vectors.

Nothing here must be kept secret or remembered but the messages themselves: after a crash the same messages
give the same round again. Only the survivors must not change once an unmask message has left, for each site
answers one. Whoever sends something wrong is named, and the round goes on without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from federated.secagg import masks
from federated.secagg.context import Asked
from federated.secagg.federation import (
    Federation,
    Plan,
    check_cohort,
    check_enough,
    check_plan,
    least_threshold,
)
from federated.secagg.lattice import Lattice
from federated.secagg.messages import PARCEL, label, opened, packed, parcel_digest
from federated.secagg.refused import Refused


@dataclass(frozen=True, kw_only=True)
class Advertised:
    """A site's round key: `head` is what is handed on, with the parcel of each other site of the plan."""

    site: str
    key: bytes
    head: bytes
    parcels: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The masked sum of the survivors. `refused` says of the others' replies which were wrong, and why.

    `unread` are the dealers, by the site that says so, whose share of a round key could not be read.
    """

    total: masks.Words
    weights: Mapping[str, int]
    commitments: Mapping[str, str]
    parcels: Mapping[str, Mapping[str, bytes]]
    refused: Mapping[str, str]
    unread: Mapping[str, tuple[str, ...]]

    @property
    def survivors(self) -> tuple[str, ...]:
        """The sites that are summed, sorted."""
        return tuple(sorted(self.weights))


def plan_round(
    federation: Federation, number: int, sites: Iterable[str], *, threshold: int | None = None
) -> Plan:
    """The plan of a round among `sites`; by default with the lowest threshold that sites agree to.

    Numbers rise and are never used again: a round that is given up goes on under the next one.

    Raises:
        Refused: no site would agree to it.
    """
    roster = tuple(sorted(set(sites)))
    least = least_threshold(len(roster))
    plan = Plan(round=number, roster=roster, threshold=least if threshold is None else threshold)
    check_plan(federation, plan)
    return plan


def advertised(federation: Federation, plan: Plan, site: str, content: bytes) -> Advertised:
    """What `site` sent for `plan`.

    Raises:
        Refused: it is not signed by the site's pinned key, of another round or plan, or a parcel is wrong.
    """
    others = [peer for peer in plan.roster if peer != site]
    digest = plan.digest(federation.id)
    try:
        sender = federation.members[site].sign
        said, head, body = opened("advertise", content, sender)
        check_same(said, {"federation": federation.id, "round": plan.round, "site": site, "plan": digest})
        parcels = parcels_of(body, others)
        for peer, parcel in parcels.items():
            about = label("key", federation.id, plan.round, digest, site, peer)
            parcel_digest(parcel, sender=sender, about=about)
        key = bytes.fromhex(said["key"])
        if len(key) != 32:
            raise ValueError("no key")
    except (ValueError, KeyError, TypeError) as problem:
        raise _wrong(site, problem) from None
    return Advertised(site=site, key=key, head=head, parcels=parcels)


def ask(
    federation: Federation, lattice: Lattice, plan: Plan, offers: Mapping[str, Advertised], *, about: str
) -> Asked:
    """The round among the sites that have advertised a key.

    Raises:
        Refused: they are too few.
    """
    cohort = tuple(sorted(offers))
    check_cohort(federation, plan, cohort)
    return Asked(plan=plan, cohort=cohort, about=about, bits=lattice.bits, values=lattice.values)


def train_message(federation: Federation, asked: Asked, offers: Mapping[str, Advertised], site: str) -> bytes:
    """What `site` is asked: the cohort, and each other site's signed round key and share for `site`."""
    body = b"".join(offers[peer].head + offers[peer].parcels[site] for peer in asked.cohort if peer != site)
    return packed(asked.head(federation.id, site), body)


def gather(
    federation: Federation, lattice: Lattice, asked: Asked, replies: Iterable[tuple[str, bytes | memoryview]]
) -> Gathered:
    """The masked sum of all replies that are right, one after the other: memory does not grow with them.

    Raises:
        Refused: fewer than the threshold are right.
    """
    total = masks.words(np.zeros(asked.values, dtype=np.int64), asked.bits)
    weights, commitments, refused = {}, {}, {}
    parcels: dict[str, dict[str, bytes]] = {}
    unread: dict[str, tuple[str, ...]] = {}
    for site, content in replies:
        try:
            if site in weights:
                raise ValueError("twice")
            found = masked_of(federation, lattice, asked, site, content)
        except ValueError as problem:
            refused[site] = str(problem)
            continue
        total += masks.from_bytes(found.vector, asked.bits)
        weights[site], commitments[site], parcels[site] = found.weight, found.commitment, found.parcels
        if found.unread:
            unread[site] = found.unread
    check_enough(federation, asked.plan.threshold, sorted(weights))
    return Gathered(
        total=total, weights=weights, commitments=commitments, parcels=parcels, refused=refused, unread=unread
    )


class OtherRound(ValueError):
    """A vector that its site did send, for something else: who is in between can send it again."""


@dataclass(frozen=True, kw_only=True)
class Vector:
    """A masked vector, as its site signed it."""

    weight: int
    commitment: str
    unread: tuple[str, ...]
    vector: memoryview
    parcels: dict[str, bytes]


def masked_of(
    federation: Federation, lattice: Lattice, asked: Asked, site: str, content: bytes | memoryview
) -> Vector:
    """What `site` sent for the round that was `asked`.

    Raises:
        ValueError: it was not asked, or something of it is wrong; the message says what. OtherRound: it is of
            another round.
    """
    if site not in asked.cohort:
        raise ValueError("not asked")
    sender, size = federation.members[site].sign, asked.values * asked.bits // 8
    context = asked.context(federation.id)
    try:
        said, _, body = opened("masked", content, sender)
        check_same(said, {"federation": federation.id, "site": site})
        if (said["round"], said["context"]) != (asked.plan.round, context):
            raise OtherRound("of another round, or for another cohort")
        if type(said["weight"]) is not int or not 1 <= said["weight"] <= lattice.most:
            raise ValueError("a weight that is not allowed")
        held = parcels_of(body[size:], [peer for peer in asked.cohort if peer != site])
        for peer, parcel in held.items():
            about = label("seed", federation.id, asked.plan.round, context, site, peer)
            parcel_digest(parcel, sender=sender, about=about)
        unread = tuple(peer for peer in asked.cohort if peer in said["unread"])
        commitment = str(said["commitment"])
    except (KeyError, TypeError) as problem:
        raise ValueError(str(problem)) from None
    return Vector(
        weight=said["weight"], commitment=commitment, unread=unread, vector=body[:size], parcels=held
    )


def unmask_message(federation: Federation, asked: Asked, gathered: Gathered, site: str) -> bytes:
    """What a survivor is asked: who survived and who dropped, with the survivors' seed shares for `site`."""
    survivors = gathered.survivors
    head = {
        "federation": federation.id,
        "to": site,
        "round": asked.plan.round,
        "context": asked.context(federation.id),
        "survivors": list(survivors),
        "dropped": dropped(asked, survivors),
    }
    return packed(head, b"".join(gathered.parcels[peer][site] for peer in survivors if peer != site))


def dropped(asked: Asked, survivors: Sequence[str]) -> list[str]:
    """Who of the cohort is not among the survivors."""
    return [peer for peer in asked.cohort if peer not in survivors]


def parcels_of(body: memoryview, sites: Sequence[str]) -> dict[str, bytes]:
    """The parcels for `sites`, which come one after the other.

    Raises:
        ValueError: they are more or fewer.
    """
    if len(body) != PARCEL * len(sites):
        raise ValueError("another length")
    return {site: bytes(body[at * PARCEL : (at + 1) * PARCEL]) for at, site in enumerate(sites)}


def check_same(said: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Nothing, where a head says what is expected.

    Raises:
        ValueError: it says something else.
    """
    for name, value in expected.items():
        if said[name] != value:
            raise ValueError(f"another {name}")


def _wrong(site: str, problem: Exception) -> Refused:
    return Refused(
        f"What {site} sent cannot be used: {problem}.", f"Leave {site} out.", reason="forged", site=site
    )
