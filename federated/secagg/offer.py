"""The first message: a site's key for one round, and shares of its secret, before the round begins.

It travels with the answer to the round before (the first round needs one message more), so that a site that
drops out before it sends anything can be taken out of the others' masks.
"""

from __future__ import annotations

import os
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from federated.secagg import shamir
from federated.secagg.federation import Federation, Plan, SiteKeys, check_plan
from federated.secagg.messages import label, seal_share, signed
from federated.secagg.refused import Refused
from federated.secagg.request import check_own
from federated.secagg.state import Offer, State

_OPEN = 8  # a coordinator that asks for more only loses the oldest


def advertise(
    state: State, keys: SiteKeys, federation: Federation, plan: Plan, *, random: shamir.Random = os.urandom
) -> tuple[State, bytes]:
    """A fresh round key, signed, with a share of its secret for each other site of the plan.

    Raises:
        Refused: the plan cannot be agreed to, leaves this site out, or is of a round that is not above all
            that were advertised or masked before.
    """
    check_own(state, keys, federation)
    check_plan(federation, plan)
    if keys.site not in plan.roster:
        raise Refused("This site is not in the plan.", "Ask the sites of the plan.", reason="wrong-sites")
    if plan.round <= max(state.offered, state.masked_round):
        raise Refused(
            f"Round {plan.round} was advertised before, or a later one was.",
            "Send the stored answer again, or take the next number.",
            reason="repeated",
        )
    digest, secret = plan.digest(federation.id), _round_secret(random)
    places = range(1, len(plan.roster) + 1)
    shares = shamir.deal(secret, places, needed=plan.threshold, random=random)
    body = b"".join(
        seal_share(
            shares[plan.place(peer)],
            to=federation.members[peer].x25519,
            about=label("key", federation.id, plan.round, digest, keys.site, peer),
            sign=keys.sign.sign,
        )
        for peer in plan.roster
        if peer != keys.site
    )
    head = {
        "federation": federation.id,
        "round": plan.round,
        "site": keys.site,
        "plan": digest,
        "key": X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw().hex(),
    }
    offers = (*state.offers, Offer(round=plan.round, plan=digest, secret=secret))[-_OPEN:]
    return replace(state, offered=plan.round, offers=offers), signed("advertise", head, body, keys.sign.sign)


def _round_secret(random: shamir.Random) -> bytes:
    """An X25519 secret that is clamped (RFC 7748) and an element of the field."""
    while True:
        drawn = bytearray(random(32))
        drawn[0] &= 248
        drawn[31] = drawn[31] & 127 | 64
        if int.from_bytes(drawn, "little") < shamir.PRIME:
            return bytes(drawn)
