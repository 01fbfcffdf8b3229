"""What a train message asks, read as a site reads it: nothing in it is believed that is not pinned or signed.

`read_request` is for the round loop, before anything is trained; site.masked reads the same again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.core.errors import ConfigWrong
from federated.secagg.context import Asked, asked_of
from federated.secagg.federation import Federation, Plan, SiteKeys, check_cohort
from federated.secagg.lattice import Lattice
from federated.secagg.messages import PARCEL, label, open_share, opened_head, unpacked
from federated.secagg.refused import Refused
from federated.secagg.state import Offer, State


@dataclass(frozen=True, kw_only=True)
class Request:
    """A train message: what is asked, and of each other site its round key and the share dealt to this one.

    A dealer whose share could not be read has no entry in `shares`.
    """

    asked: Asked
    offer: Offer
    public: Mapping[str, bytes]
    shares: Mapping[str, bytes]


def read_request(
    state: State, keys: SiteKeys, federation: Federation, lattice: Lattice, message: bytes, *, about: str
) -> Request:
    """What a train message asks, where this site may answer it; `about` is what the site itself begins with.

    Raises:
        Refused: it is of another federation, site or adapter; its round was answered before or never
            advertised, or advertised under another plan; its cohort or threshold is too small; or a round
            key or parcel in it is not signed by the site it is said to be of. `reason` is the code.
    """
    check_own(state, keys, federation)
    head, body = read_message(message, keys, federation)
    try:
        asked = asked_of(head, lattice)
    except (ValueError, KeyError):
        raise malformed() from None
    plan = asked.plan
    if plan.round <= state.masked_round:
        raise Refused(
            f"Round {plan.round} was answered before.", "Send the stored answer again.", reason="repeated"
        )
    offer = _offer(state, plan, federation)  # whose plan was checked when its key was advertised
    check_cohort(federation, plan, asked.cohort)
    if keys.site not in asked.cohort or len(asked.cohort) > lattice.sites:
        raise Refused("The cohort leaves this site out, or is too large.", "Ask again.", reason="wrong-sites")
    if (asked.about, head.get("bits"), head.get("values")) != (about, lattice.bits, lattice.values):
        raise Refused(
            "The round begins with another adapter or settings than this site has.",
            "Send the adapter again.",
            reason="other-model",
        )
    public: dict[str, bytes] = {}
    shares: dict[str, bytes] = {}
    for peer in asked.cohort:
        if peer != keys.site:
            try:
                public[peer], share, body = _of_peer(peer, keys, federation, plan, body)
            except (ValueError, KeyError, TypeError):
                raise forged(peer) from None
            if share is not None:
                shares[peer] = share
    if len(body) or len(set(public.values())) != len(public):
        raise malformed()
    return Request(asked=asked, offer=offer, public=public, shares=shares)


def _of_peer(
    peer: str, keys: SiteKeys, federation: Federation, plan: Plan, body: memoryview
) -> tuple[bytes, bytes | None, memoryview]:
    """The peer's round key, its share if it can be read, and what comes after them."""
    sender, digest = federation.members[peer].sign, plan.digest(federation.id)
    said, rest = opened_head("advertise", body, sender)
    expected = (federation.id, plan.round, peer, digest)
    if (said["federation"], said["round"], said["site"], said["plan"]) != expected:
        raise ValueError("of another round")
    about = label("key", federation.id, plan.round, digest, peer, keys.site)
    share = open_share(bytes(rest[:PARCEL]), key=keys.x25519, sender=sender, about=about)
    return bytes.fromhex(said["key"]), share, rest[PARCEL:]


def _offer(state: State, plan: Plan, federation: Federation) -> Offer:
    for one in state.offers:
        if (one.round, one.plan) == (plan.round, plan.digest(federation.id)):
            return one
    raise Refused(
        f"This site has advertised no key for round {plan.round} under this plan.",
        "Open the round first, under a new number.",
        reason="other-plan",
    )


def check_own(state: State, keys: SiteKeys, federation: Federation) -> None:
    """Nothing, where state and keys are of this site of the federation.

    Raises:
        ConfigWrong: they are not.
    """
    member = federation.members.get(keys.site)
    if member is None or (state.federation, state.site) != (federation.id, keys.site):
        raise ConfigWrong("The state is of another site or federation.", "Begin with a fresh one.")
    public = (keys.sign.public_key().public_bytes_raw(), keys.x25519.public_key().public_bytes_raw())
    if public != (member.sign, member.x25519):
        raise ConfigWrong("The site's keys are not the pinned ones.", "Enrol the site again.")


def read_message(message: bytes, keys: SiteKeys, federation: Federation) -> tuple[dict[str, Any], memoryview]:
    """Head and body of a coordinator's message to this site.

    Raises:
        Refused: it is of another form, or for another site or federation.
    """
    try:
        head, body = unpacked(message)
    except ValueError:
        raise malformed() from None
    if (head.get("federation"), head.get("to")) != (federation.id, keys.site):
        raise Refused(
            "The message is for another site or federation.", "Send it there.", reason="misdirected"
        )
    return head, body


def forged(site: str) -> Refused:
    """The refusal of what does not bear the pinned signature of `site`."""
    return Refused(
        f"What is said to be of {site} is not signed by its pinned key for this round.",
        f"Check the link, and the keys of {site}.",
        reason="forged",
        site=site,
    )


def malformed() -> Refused:
    """The refusal of what no coordinator of ours sends."""
    return Refused("The message is not of the form it should have.", "Send it again.", reason="malformed")
