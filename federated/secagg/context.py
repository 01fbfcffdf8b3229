"""What a round is: its plan, whom it asks, what about, and how the vector is spelled.

Its digest keys every mask and labels every seed share. Sites that are told different things therefore use
masks that do not cancel: a lie of that kind yields noise and nothing else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from appliance.security import canonical
from federated.secagg.federation import Plan
from federated.secagg.lattice import Lattice
from federated.secagg.masks import Bits


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A round as it is asked. `about` is what it begins with: the digest of the adapter, in hex."""

    plan: Plan
    cohort: tuple[str, ...]
    about: str
    bits: Bits
    values: int

    def context(self, federation: str) -> str:
        """Hex SHA-256 of all of it."""
        said = [
            federation,
            self.plan.digest(federation),
            list(self.cohort),
            self.about,
            self.bits,
            self.values,
        ]
        return hashlib.sha256(b"cloister/f1/secagg/context\0" + canonical.encode(said)).hexdigest()

    def head(self, federation: str, to: str) -> dict[str, Any]:
        """How a train message to a site says it."""
        return {
            "federation": federation,
            "to": to,
            "round": self.plan.round,
            "roster": list(self.plan.roster),
            "threshold": self.plan.threshold,
            "cohort": list(self.cohort),
            "about": self.about,
            "bits": self.bits,
            "values": self.values,
        }


def asked_of(head: dict[str, Any], lattice: Lattice) -> Asked:
    """What a train message asks, with bits and values as this site has them pinned.

    Raises:
        ValueError: it lacks something, or says something of another kind.
    """
    roster, cohort = head["roster"], head["cohort"]
    if not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in (roster, cohort)
    ):
        raise ValueError("no list of sites")
    if (
        type(head["round"]) is not int
        or type(head["threshold"]) is not int
        or not isinstance(head["about"], str)
    ):
        raise ValueError("no number")
    plan = Plan(round=head["round"], roster=tuple(roster), threshold=head["threshold"])
    return Asked(
        plan=plan, cohort=tuple(cohort), about=head["about"], bits=lattice.bits, values=lattice.values
    )
