"""The three questions of a secure attempt, as they travel beside the agreement.

    step    the coordinator asks with                           the site answers with
    keys    a plan                                              its advertisement
    train   the train message, the adapter                      its masked vector, in a signed update
    open    the unmask message, the plan of the next attempt    its reveal, and the next advertisement

The parts of a body come one after the other, each but the last after its length (4 bytes, big-endian).
"""

from __future__ import annotations

from typing import Any

from federated.secagg.federation import Federation, Plan
from federated.secagg.messages import packed, unpacked

KEYS, TRAIN, OPEN = "keys", "train", "open"


def joined(first: bytes, last: bytes) -> bytes:
    """Two parts as one body."""
    return len(first).to_bytes(4, "big") + first + last


def parted(body: bytes) -> tuple[bytes, bytes]:
    """The two parts.

    Raises:
        ValueError: it was cut short.
    """
    length = int.from_bytes(body[:4], "big")
    if len(body) < 4 + length:
        raise ValueError("cut short")
    return body[4 : 4 + length], body[4 + length :]


def plan_message(federation: Federation, plan: Plan) -> bytes:
    """A plan, for all its sites alike."""
    head: dict[str, Any] = {
        "federation": federation.id,
        "round": plan.round,
        "roster": list(plan.roster),
        "threshold": plan.threshold,
    }
    return packed(head, b"")


def plan_of(federation: Federation, message: bytes) -> Plan:
    """The plan that a message holds; whether it may be agreed to is for offer.advertise to say.

    Raises:
        ValueError: it is none, or of another federation.
    """
    head, _ = unpacked(message)
    roster, number, threshold = head.get("roster"), head.get("round"), head.get("threshold")
    if head.get("federation") != federation.id or type(number) is not int or type(threshold) is not int:
        raise ValueError("another federation, or no plan")
    if not isinstance(roster, list) or not all(isinstance(name, str) for name in roster):
        raise ValueError("no list of sites")
    return Plan(round=number, roster=tuple(roster), threshold=threshold)
