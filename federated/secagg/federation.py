"""What every site has pinned: who takes part, with which keys, and how few may be summed.

All of it comes from the signed federation description and none from a message, for a coordinator that could
name the sites or their keys could put itself in the place of all the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from appliance.core.errors import ConfigWrong
from appliance.security import canonical
from federated.secagg.refused import Refused

FEWEST, MOST = 3, 255  # of two sites each would know the other; a share's number is one byte


@dataclass(frozen=True, kw_only=True)
class Member:
    """A site's pinned public keys, 32 bytes each: Ed25519 to sign with, X25519 to receive shares with."""

    sign: bytes
    x25519: bytes


@dataclass(frozen=True, kw_only=True)
class Federation:
    """`id` is the SHA-256 of the signed description, in hex; `minimum` the fewest sites of a sum.

    Raises:
        ConfigWrong: fewer than 3 sites or more than 255, a minimum below 3 or never met, or a key used twice.
    """

    id: str
    members: Mapping[str, Member]
    minimum: int = FEWEST

    def __post_init__(self) -> None:
        if not FEWEST <= self.minimum <= len(self.members) <= MOST:
            raise ConfigWrong(
                f"Secure aggregation needs {FEWEST} to {MOST} sites, and a minimum from {FEWEST} up.",
                "Enrol more sites, or average without it.",
            )
        keys = [key for member in self.members.values() for key in (member.sign, member.x25519)]
        if len(set(keys)) != len(keys) or any(len(key) != 32 for key in keys):
            raise ConfigWrong("Two sites have the same key, or one has none.", "Enrol them again.")


@dataclass(frozen=True, kw_only=True)
class SiteKeys:
    """A site's own name and private keys; the public halves are pinned under that name."""

    site: str
    sign: Ed25519PrivateKey
    x25519: X25519PrivateKey


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Who may be asked in a round, sorted, and how many of them together can open its masks.

    A site deals the shares of its round key by the plan, before it is known who will really be asked.
    """

    round: int
    roster: tuple[str, ...]
    threshold: int

    def digest(self, federation: str) -> str:
        """Hex SHA-256 that an advertisement names the plan by."""
        said = [federation, self.round, list(self.roster), self.threshold]
        return hashlib.sha256(b"cloister/f1/secagg/plan\0" + canonical.encode(said)).hexdigest()

    def place(self, site: str) -> int:
        """The number of the site's shares, from 1."""
        return self.roster.index(site) + 1


def least_threshold(sites: int) -> int:
    """floor(2n/3) + 1: two groups of that size have more than n/3 sites in common, who answer only once."""
    return 2 * sites // 3 + 1


def check_plan(federation: Federation, plan: Plan) -> None:
    """Nothing, where a site may agree to `plan`.

    Raises:
        Refused: rounds below 1, sites that are not pinned, too few, not sorted, or a threshold that is too
            low.
    """
    if not 1 <= plan.round < 1 << 53:
        raise Refused("A round is counted from 1.", "Take the next number.", reason="bad-round")
    _check_names(plan.roster, federation.members, "roster")
    if len(plan.roster) < federation.minimum:
        raise Refused(
            f"A round of {len(plan.roster)} sites is asked for; the minimum is {federation.minimum}.",
            "Wait until more sites are there.",
            reason="too-few",
        )
    if not least_threshold(len(plan.roster)) <= plan.threshold <= len(plan.roster):
        raise Refused(
            f"A threshold of {plan.threshold} is asked for; {len(plan.roster)} sites need"
            f" {least_threshold(len(plan.roster))} or more.",
            "The coordinator must keep to the protocol.",
            reason="low-threshold",
        )


def check_cohort(federation: Federation, plan: Plan, cohort: Sequence[str]) -> None:
    """Nothing, where the sites of `cohort` may be summed under `plan`.

    Raises:
        Refused: a site outside the plan, or fewer than its threshold or the federation's minimum.
    """
    _check_names(cohort, plan.roster, "cohort")
    check_enough(federation, plan.threshold, cohort)


def check_enough(federation: Federation, threshold: int, sites: Sequence[str]) -> None:
    """Nothing, where so many sites may be summed.

    Raises:
        Refused: they are fewer than the threshold or the federation's minimum.
    """
    if len(sites) < max(threshold, federation.minimum, FEWEST):
        raise Refused(
            f"A sum of {len(sites)} sites is asked for; {max(threshold, federation.minimum)} are needed.",
            "Start the round again when more sites are there.",
            reason="too-few",
        )


def _check_names(names: Sequence[str], known: Mapping[str, Member] | Sequence[str], what: str) -> None:
    if list(names) != sorted(set(names)) or not set(names) <= set(known):
        raise Refused(
            f"The {what} names a site twice, out of order, or one that does not belong to it.",
            "The coordinator must keep to the signed federation.",
            reason="wrong-sites",
        )
