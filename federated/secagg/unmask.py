"""Takes the masks off the sum of the survivors, with the shares that sites have revealed.

Each share is held against the digest that its dealer signed, and each secret against the round key or the
commitment; so the sum comes from any `threshold` right answers, and whoever gave a wrong one is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from federated.secagg import masks, shamir
from federated.secagg.context import Asked
from federated.secagg.coordinator import Advertised, Gathered, check_same, dropped
from federated.secagg.federation import Federation, Plan
from federated.secagg.messages import digest_in, label, opened, share_digest
from federated.secagg.refused import Refused

_SHARE = 32


@dataclass(frozen=True, kw_only=True)
class Summed:
    """The sum modulo 2**bits without masks (lattice.decode), whose it is, and its weight.

    `wrong` says which sites' answers were not used, and why.
    """

    total: masks.Words
    survivors: tuple[str, ...]
    weight: int
    wrong: Mapping[str, str]


def unmask(
    federation: Federation,
    asked: Asked,
    offers: Mapping[str, Advertised],
    gathered: Gathered,
    answers: Iterable[tuple[str, bytes]],
) -> Summed:
    """The sum of the survivors, from the first `threshold` right shares of each secret.

    Raises:
        Refused: too few right answers; `site` names a dealer whose shares do not give what it signed.
    """
    context, survivors = asked.context(federation.id), gathered.survivors
    known, wrong = _answers(federation, asked, gathered, offers, answers)
    secrets = {peer: _secret(asked.plan, peer, known[peer]) for peer in asked.cohort}
    for peer in survivors:
        if masks.commitment(secrets[peer], context=context, site=peer) != gathered.commitments[peer]:
            raise _dealt_wrong(peer)
    round_keys = {}
    for peer in dropped(asked, survivors):
        round_keys[peer] = X25519PrivateKey.from_private_bytes(secrets[peer])
        if round_keys[peer].public_key().public_bytes_raw() != offers[peer].key:
            raise _dealt_wrong(peer)
    total = gathered.total.copy()
    masks.add_masks(total, _to_take_off(context, survivors, secrets, round_keys, offers))
    weight = sum(gathered.weights.values())
    return Summed(total=total, survivors=survivors, weight=weight, wrong=wrong)


def _to_take_off(
    context: str,
    survivors: Sequence[str],
    seeds: Mapping[str, bytes],
    round_keys: Mapping[str, X25519PrivateKey],
    offers: Mapping[str, Advertised],
) -> Iterator[tuple[bytes, int]]:
    for site in survivors:
        yield masks.self_key(seeds[site], context=context, site=site), -1
        for gone, key in round_keys.items():
            shared = masks.pair_key(key, offers[site].key, context=context, sites=(site, gone))
            yield shared, -masks.sign_of(site, gone)


def _answers(
    federation: Federation,
    asked: Asked,
    gathered: Gathered,
    offers: Mapping[str, Advertised],
    answers: Iterable[tuple[str, bytes]],
) -> tuple[dict[str, dict[int, bytes]], dict[str, str]]:
    """For each site of the cohort the right shares by place; and whose answers were wrong."""
    known: dict[str, dict[int, bytes]] = {peer: {} for peer in asked.cohort}
    wrong: dict[str, str] = {}
    context, survivors = asked.context(federation.id), gathered.survivors
    for site, content in answers:
        try:
            if site not in survivors or asked.plan.place(site) in known[site]:
                raise ValueError("not asked, or twice")
            said, _, body = opened("reveal", content, federation.members[site].sign)
            about = {"federation": federation.id, "round": asked.plan.round, "site": site, "context": context}
            check_same(said, {**about, "survivors": list(survivors)})
            if len(body) != _SHARE * len(asked.cohort):
                raise ValueError("another length")
            shares = {
                peer: bytes(body[number * _SHARE : (number + 1) * _SHARE])
                for number, peer in enumerate(asked.cohort)
            }
            right = {
                peer: share
                for peer, share in shares.items()
                if _right(federation, asked, gathered, offers, site, peer, share)
            }
        except (ValueError, KeyError, TypeError) as problem:
            wrong[site] = str(problem)
            continue
        for peer, share in right.items():
            known[peer][asked.plan.place(site)] = share
        if len(right) < len(shares):
            wrong[site] = (
                f"shares of {', '.join(sorted(set(shares) - set(right)))} are not those it was dealt"
            )
    return known, wrong


def _right(
    federation: Federation,
    asked: Asked,
    gathered: Gathered,
    offers: Mapping[str, Advertised],
    site: str,
    peer: str,
    share: bytes,
) -> bool:
    """Whether this is the share that `peer` signed a digest of for `site`; of its own there is none."""
    if site == peer:
        return True
    if peer in gathered.weights:
        what, context, parcel = "seed", asked.context(federation.id), gathered.parcels[peer][site]
    else:
        what, context, parcel = "key", asked.plan.digest(federation.id), offers[peer].parcels[site]
    about = label(what, federation.id, asked.plan.round, context, peer, site)
    return share_digest(share, about) == digest_in(parcel)


def _secret(plan: Plan, dealer: str, shares: Mapping[int, bytes]) -> bytes:
    own = plan.place(dealer)
    places = sorted(shares, key=lambda place: (place == own, place))[: plan.threshold]
    if len(places) < plan.threshold:
        raise Refused(
            f"{len(places)} right shares of {dealer}'s secret are there; {plan.threshold} are needed.",
            "Wait for more sites to answer, or start the round again under the next number.",
            reason="too-few",
            site=dealer,
        )
    return shamir.join(shares, shamir.weights(tuple(places)))


def _dealt_wrong(site: str) -> Refused:
    return Refused(
        f"The shares that {site} dealt do not give the secret it signed.",
        f"Start the round again under the next number, without {site}.",
        reason="dealt-wrong",
        site=site,
    )
