"""What a site must remember between messages, so that it never answers twice, also after a restart.

The caller stores the bytes durably, and where nobody else reads them (they hold secrets), BEFORE the answer
they came with leaves; a resent answer is the stored one. A state that may be older than an answer that left
(a restored backup) must not be used: begin with `fresh`, which only loses the rounds under way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from appliance.core.errors import ConfigWrong
from appliance.security import canonical

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A round key that was advertised and not used yet, and the digest of its plan."""

    round: int
    plan: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Offer(round={self.round})"


@dataclass(frozen=True, kw_only=True)
class Masked:
    """The round whose masked vector left last. `seed_share` is the site's share of its own seed.

    `key_shares` are those of the other sites' round keys, as far as they could be read. Both are gone once
    they were asked for: there is one answer.
    """

    round: int
    context: str
    threshold: int
    cohort: tuple[str, ...]
    key_shares: dict[str, bytes]
    seed_share: bytes
    revealed: bool = False

    def __repr__(self) -> str:
        return f"Masked(round={self.round}, revealed={self.revealed})"


@dataclass(frozen=True, kw_only=True)
class State:
    """`offered` and `masked_round` only ever rise: no round is advertised or masked twice."""

    federation: str
    site: str
    offered: int = 0
    masked_round: int = 0
    offers: tuple[Offer, ...] = ()
    last: Masked | None = None


def fresh(federation: str, site: str) -> State:
    """The state of a site that has answered nothing yet."""
    return State(federation=federation, site=site)


def to_bytes(state: State) -> bytes:
    """The state with its secrets, to be stored sealed."""
    last = state.last
    return canonical.encode(
        {
            "v": _VERSION,
            "federation": state.federation,
            "site": state.site,
            "offered": state.offered,
            "masked_round": state.masked_round,
            "offers": [[one.round, one.plan, one.secret.hex()] for one in state.offers],
            "last": None
            if last is None
            else {
                "round": last.round,
                "context": last.context,
                "threshold": last.threshold,
                "cohort": list(last.cohort),
                "key_shares": {name: share.hex() for name, share in last.key_shares.items()},
                "seed_share": last.seed_share.hex(),
                "revealed": last.revealed,
            },
        }
    )


def state_of(content: bytes) -> State:
    """What `to_bytes` gave.

    Raises:
        ConfigWrong: it is damaged, or of another version.
    """
    try:
        held = canonical.decode(content)
        if held["v"] != _VERSION:
            raise ValueError("another version")
        return State(
            federation=held["federation"],
            site=held["site"],
            offered=held["offered"],
            masked_round=held["masked_round"],
            offers=tuple(
                Offer(round=number, plan=plan, secret=bytes.fromhex(secret))
                for number, plan, secret in held["offers"]
            ),
            last=_masked(held["last"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigWrong(
            "The state of secure aggregation is damaged.",
            "Begin with a fresh one: the round under way is lost, nothing else.",
        ) from None


def _masked(held: dict[str, Any] | None) -> Masked | None:
    if held is None:
        return None
    return Masked(
        round=held["round"],
        context=held["context"],
        threshold=held["threshold"],
        cohort=tuple(held["cohort"]),
        key_shares={name: bytes.fromhex(share) for name, share in held["key_shares"].items()},
        seed_share=bytes.fromhex(held["seed_share"]),
        revealed=held["revealed"],
    )
