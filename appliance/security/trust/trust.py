"""Whom a site trusts, for what and until when, at one moment: plain values that a reader of bundles asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from appliance.security.trust.identity import Card

DAY = 86_400
AHEAD = 400 * DAY
"""Seconds that a signed time may lie ahead of what is known of the time, and audit times of signed ones."""

MAY_SIGN = {
    "release": ("model", "adapter", "wheelhouse", "trust"),
    "site": ("model", "adapter", "round", "trust"),
    "edge": (),
    "person": (),
}
"""The kinds of bundle that each role may sign, unless a card was taken for fewer or others."""


@dataclass(frozen=True, kw_only=True)
class Signer:
    """A key that may sign bundles of `kinds`. `until`: when what vouches for it ends; None: never."""

    name: str
    role: str
    key: str
    kinds: frozenset[str]
    key_epoch: int
    until: int | None = None
    vouched: str = "pinned"


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What is trusted `now` (Unix seconds, never before the time floor).

    `floors`: the highest number taken of each (signer, key epoch, line).
    """

    now: int
    signers: Mapping[str, Signer] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()
    floors: Mapping[tuple[str, int, str], int] = field(default_factory=dict)


def trust_of_cards(cards: Iterable[Card], *, now: int) -> Trust:
    """Trust in cards alone, without a site's database: no floors, so a replay is not seen."""
    return Trust(now=now, signers={card.key: signer_of(card) for card in cards})


def signer_of(card: Card, kinds: Iterable[str] | None = None) -> Signer:
    """What the holder of a card may sign."""
    return Signer(
        name=card.name,
        role=card.role,
        key=card.key,
        kinds=frozenset(MAY_SIGN[card.role] if kinds is None else kinds),
        key_epoch=card.key_epoch,
    )
