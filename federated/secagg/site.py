"""A site's side of a round: it sends a masked vector, and reveals one share for each site of the cohort.

Each function takes the state and gives the next one with the answer; a refusal changes nothing. What the
coordinator says is believed in nothing that could show an update: keys are the pinned ones, cohort and
threshold are checked here, each round and each question is answered once, and for each site one of its two
secrets is revealed, never both. Calls for one site come one after the other.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from appliance.core.errors import DataRejected
from federated.secagg import masks, shamir
from federated.secagg.federation import Federation, SiteKeys, check_enough
from federated.secagg.lattice import Lattice
from federated.secagg.messages import PARCEL, label, open_share, seal_share, signed
from federated.secagg.refused import Refused
from federated.secagg.request import Request, check_own, forged, malformed, read_message, read_request
from federated.secagg.state import Masked, State

NO_SHARE = b"\xff" * 32  # of a site that dealt none which can be read; no element of the field
Integers = NDArray[np.int64]


def masked(
    state: State,
    keys: SiteKeys,
    federation: Federation,
    lattice: Lattice,
    message: bytes,
    integers: Integers,
    *,
    weight: int,
    about: str,
    random: shamir.Random = os.urandom,
) -> tuple[State, bytes]:
    """The masked vector, signed, with a share of its own mask's seed for each other site of the cohort.

    `integers` are weighted already and hold the site's noise; `about` is what they were trained from, as the
    site knows it. request.read_request says earlier whether the round can be answered.

    Raises:
        Refused: see read_request.
        DataRejected: the integers are of another length, or larger than the lattice allows.
    """
    request = read_request(state, keys, federation, lattice, message, about=about)
    _check_integers(integers, weight, lattice)
    plan, context = request.asked.plan, request.asked.context(federation.id)
    seed = shamir.element(random).to_bytes(32, "little")
    total = masks.words(integers, lattice.bits)
    masks.add_masks(total, _streams(request, seed, context, keys.site))
    places = {site: plan.place(site) for site in request.asked.cohort}
    shares = shamir.deal(seed, list(places.values()), needed=plan.threshold, random=random)
    parcels = b"".join(
        seal_share(
            shares[places[peer]],
            to=federation.members[peer].x25519,
            about=label("seed", federation.id, plan.round, context, keys.site, peer),
            sign=keys.sign.sign,
        )
        for peer in request.public
    )
    head = {
        "federation": federation.id,
        "round": plan.round,
        "site": keys.site,
        "context": context,
        "weight": weight,
        "commitment": masks.commitment(seed, context=context, site=keys.site),
        "unread": [peer for peer in request.public if peer not in request.shares],
    }
    last = Masked(
        round=plan.round,
        context=context,
        threshold=plan.threshold,
        cohort=request.asked.cohort,
        key_shares=dict(request.shares),
        seed_share=shares[places[keys.site]],
    )
    later = tuple(one for one in state.offers if one.round > plan.round)
    after = replace(state, masked_round=plan.round, offers=later, last=last)
    return after, signed("masked", head, masks.to_bytes(total, lattice.bits) + parcels, keys.sign.sign)


def reveal(state: State, keys: SiteKeys, federation: Federation, message: bytes) -> tuple[State, bytes]:
    """For each site of the cohort one share: of a survivor's seed, or of a dropped site's round key.

    Raises:
        Refused: it is not about the vector that left last, was asked before, leaves out a site or names one
            twice, counts this site as dropped, or names too few survivors.
    """
    check_own(state, keys, federation)
    head, body = read_message(message, keys, federation)
    last = state.last
    if last is None or (head.get("round"), head.get("context")) != (last.round, last.context):
        raise Refused(
            "This is not about the vector sent last.", "Ask about the last round.", reason="bad-round"
        )
    if last.revealed:
        raise Refused(
            f"Round {last.round} was opened before.", "Send the stored answer again.", reason="repeated"
        )
    survivors, dropped = _sides(head, last, keys.site)
    check_enough(federation, last.threshold, survivors)
    found = {peer: last.key_shares.get(peer, NO_SHARE) for peer in dropped}
    found[keys.site] = last.seed_share
    others = [peer for peer in survivors if peer != keys.site]
    if len(body) != PARCEL * len(others):
        raise malformed()
    for number, peer in enumerate(others):
        about = label("seed", federation.id, last.round, last.context, peer, keys.site)
        parcel = bytes(body[number * PARCEL : (number + 1) * PARCEL])
        try:
            share = open_share(parcel, key=keys.x25519, sender=federation.members[peer].sign, about=about)
        except ValueError:
            raise forged(peer) from None
        found[peer] = share or NO_SHARE
    answer = {
        "federation": federation.id,
        "round": last.round,
        "site": keys.site,
        "context": last.context,
        "survivors": survivors,
    }
    emptied = replace(last, revealed=True, key_shares={}, seed_share=NO_SHARE)
    shares = b"".join(found[peer] for peer in last.cohort)
    return replace(state, last=emptied), signed("reveal", answer, shares, keys.sign.sign)


def _sides(head: dict[str, Any], last: Masked, site: str) -> tuple[list[str], list[str]]:
    """Survivors and dropped sites: each of the cohort is one of them, and this site a survivor."""
    survivors, dropped = head.get("survivors"), head.get("dropped")
    if not isinstance(survivors, list) or not isinstance(dropped, list):
        raise malformed()
    named = [*survivors, *dropped]
    if not all(isinstance(name, str) for name in named) or sorted(named) != list(last.cohort):
        raise Refused(
            "Survivors and dropped sites are not the cohort.",
            "Each site is one or the other.",
            reason="wrong-sites",
        )
    if site not in survivors:
        raise Refused("This site is said to be dropped.", "Ask the survivors.", reason="wrong-sites")
    return survivors, dropped


def _streams(request: Request, seed: bytes, context: str, site: str) -> list[tuple[bytes, int]]:
    """The keys of this site's masks, and whether it adds or subtracts each."""
    streams = [(masks.self_key(seed, context=context, site=site), 1)]
    own = X25519PrivateKey.from_private_bytes(request.offer.secret)
    for peer, public in request.public.items():
        try:
            key = masks.pair_key(own, public, context=context, sites=(site, peer))
        except ValueError:
            raise forged(peer) from None
        streams.append((key, masks.sign_of(site, peer)))
    return streams


def _check_integers(integers: Integers, weight: int, lattice: Lattice) -> None:
    if not 1 <= weight <= lattice.most:
        raise DataRejected("The weight is not one of the federation.", "Clamp it with weight_of.")
    if integers.shape != (lattice.values,) or integers.dtype != np.int64:
        raise DataRejected("The integers are of another length or type.", "Encode the change again.")
    if int(integers.max()) > lattice.cap or int(integers.min()) < -lattice.cap:
        raise DataRejected("The integers are larger than the lattice allows.", "Encode the change again.")
