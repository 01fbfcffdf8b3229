"""A site's part of its enrolment: the request, joining with the kit, leaving.

Three keys are made here and never leave the home: of the mTLS certificate and of the Flower node (below
link/, for the processes with the network), and the X25519 key of secure aggregation (x25519.key). A fourth,
the home's own Ed25519 key, signs the request and every update.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from pydantic import ValidationError

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong, TrustRefused
from appliance.core.files import write_bytes, write_private
from appliance.core.home import Home
from appliance.core.reading import read_bytes, read_text
from appliance.data import store
from appliance.security import audit
from appliance.security.people import guard
from appliance.security.trust import store as trust
from appliance.security.trust.words import same_words
from federated import papers, pki, rules, standing
from federated.papers import Opened, Request
from federated.place import Place, place_of
from federated.policy import Policy
from federated.standing import Own

_LOOPBACK_DAYS = 3650


@dataclass(frozen=True, kw_only=True)
class Seating:
    """A kit that belongs to this home, with the rules it would join under."""

    place: Place
    opened: Opened
    policy: Policy
    base: str


def request(
    home: Home, name: str, *, site: str, dataset: str, units: int | None, again: bool, who: str
) -> bytes:
    """The request of this home for the federation `name`; the one made before unless `again`.

    Raises:
        ConfigWrong: a bad name, or this home coordinates or has joined. NotFound: no such dataset.
        PrivacyRefused: the dataset does not say whose privacy is protected.
    """
    place = place_of(home, name)
    kept = place.path / "request.json"
    if place.path.exists() and standing.side(place) in ("coordinator", "site"):
        what = "coordinates" if standing.side(place) == "coordinator" else "is a site of"
        raise ConfigWrong(f"This home {what} {name}.", "A site's home can be in a federation once.")
    if kept.exists() and not again and standing.side(place) == "asked":
        return read_bytes(kept)
    own, found = standing.own_keys(home), store.get(home, dataset)
    store.unit_of(found)
    mtls, node, round_key = pki.new_key(), pki.new_key(), X25519PrivateKey.generate()
    node_private, node_public = pki.node_key(node)
    try:
        said = Request(
            v=1,
            federation=name,
            site=site,
            key=own.key,
            x25519=round_key.public_key().public_bytes_raw().hex(),
            node=node_public,
            csr=pki.request(mtls, site).public_bytes(Encoding.PEM).decode(),
            units=units or found.units["train"],
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    except ValidationError as problem:
        wrong = ", ".join(str(one["loc"][-1]) for one in problem.errors())
        raise ConfigWrong(
            f"No request can say this: {wrong}.", "A site's name has letters, digits and hyphens: --site NAME"
        ) from None
    content = papers.write_request(said, own.sign)
    with transaction(home) as link:
        guard.spend(link, home, who, "federate.take-part", name)
        _clear(place)
        _write_keys(place, mtls, node_private, round_key)
        standing.note(place, Own(site=site, dataset=found.name))
        write_bytes(kept, content)
        audit.record(
            link, who=who, what="federate.request", target=name, site=site, request=papers.digest(content)
        )
    return content


def seating(home: Home, content: bytes, *, base: str, settings: dict[str, Any]) -> Seating:
    """What joining with a kit would be; `settings` are fields of the policy. Nothing is written.

    Raises:
        TrustRefused: the kit was altered, or belongs to other keys. ConfigWrong: this home is in it already,
            or a setting of the policy is wrong. NotFound: this home has not asked to be in it.
    """
    opened = papers.read_kit(content)
    name = opened.federation.name
    place = place_of(home, name)
    if place.path.exists() and standing.side(place) == "site":
        raise ConfigWrong(f"This home has joined {name} already.", f"See: cloister federate status {name}")
    if not (place.path / "request.json").exists():
        raise TrustRefused(
            f"This home has not asked to be in {name}, so the kit's private keys are not here.",
            "Use it where the request was made. If it was stolen, the coordinator revokes it.",
        )
    standing.at(home, name, "asked")
    _check_keys(home, place, opened)
    own, training = standing.noted(place), opened.federation.training
    given = {name: value for name, value in settings.items() if value is not None}
    policy = rules.made({
        "dataset": own.dataset, "epsilon": training.epsilon, "delta": training.delta, **given,
    })  # fmt: skip
    return Seating(place=place, opened=opened, policy=policy, base=base or opened.federation.model.base)


def check_coordinator(home: Home, opened: Opened, words: str) -> None:
    """Check whose coordinator this is: its card is pinned here, or its words were compared.

    Raises:
        TrustRefused: neither, or other words.
    """
    key = opened.federation.coordinator_key
    if words:
        if same_words(words, key):
            return
        raise TrustRefused(
            f"These are not the words of the coordinator of {opened.federation.name}.",
            "Do not join: compare again, by telephone or face to face.",
        )
    known = trust.trust(home)
    if key not in {one.key for one in known.signers.values()} - known.revoked:
        raise TrustRefused(
            "Nobody here has compared the coordinator's words.",
            'Have it read out `cloister trust card`, then add --words "..."',
        )


def put_certificates(seated: Seating) -> None:
    """Write the kit's certificates, which are public: the preflight calls the gateway with them."""
    write_private(seated.place.pki / "ca.crt", seated.opened.kit.authority.encode())
    write_private(seated.place.pki / "site.pem", seated.opened.kit.certificate.encode())


def join(home: Home, seated: Seating, *, who: str) -> None:
    """Take the seat: from now on `start` answers rounds.

    Raises:
        NotAllowed: `who` may not.
    """
    place, kit = seated.place, seated.opened.kit
    agreement, signature = kit.agreement.encode(), bytes.fromhex(kit.agreement_signature)
    with transaction(home) as link:
        guard.spend(link, home, who, "federate.take-part", seated.opened.federation.name)
        put_certificates(seated)
        rules.keep(place, seated.policy)
        standing.note(place, replace(standing.noted(place), base=seated.base))
        place.seat.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_bytes(place.seat / "agreement.sig", signature)
        write_bytes(place.seat / "agreement.toml", agreement)
        standing.put(place, agreement, signature)
        audit.record(
            link,
            who=who,
            what="federate.join",
            target=seated.opened.federation.name,
            site=kit.site,
            coordinator=seated.opened.federation.coordinator_key,
            version=seated.opened.federation.version,
        )


def leave(home: Home, name: str, *, who: str) -> None:
    """Give the seat up for good: the keys of its link are destroyed, so nothing can answer any more.

    Raises:
        NotFound: no such federation. ConfigWrong: this home is no site of it.
    """
    place = standing.at(home, name, "site", "asked")
    with transaction(home) as link:
        guard.spend(link, home, who, "federate.veto", name)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        standing.note(place, replace(standing.noted(place), left=when))
        for key in ("site.key", "node"):
            (place.pki / key).unlink(missing_ok=True)
        (place.path / "x25519.key").unlink(missing_ok=True)
        audit.record(link, who=who, what="federate.leave", target=name)


def round_key(place: Place) -> X25519PrivateKey:
    """A site's own key of secure aggregation; its public half is in the agreement.

    Raises:
        ConfigWrong: it is gone or damaged.
    """
    try:
        return X25519PrivateKey.from_private_bytes(bytes.fromhex(read_text(place.path / "x25519.key")))
    except (OSError, ValueError) as problem:
        raise ConfigWrong(
            "The key of this site for secure aggregation is gone or damaged.",
            "Restore the home from its backup, or enrol anew under another name.",
        ) from problem


def _clear(place: Place) -> None:
    """Take away what an earlier request or seat left; its keys with it."""
    shutil.rmtree(place.path, ignore_errors=True)
    place.pki.mkdir(mode=0o700, parents=True)


def _write_keys(place: Place, mtls: pki.Key, node: bytes, round_key: X25519PrivateKey) -> None:
    now, root_key, side_key = datetime.now(UTC), pki.new_key(), pki.new_key()
    root = pki.authority(root_key, "loopback", now=now, days=_LOOPBACK_DAYS)
    side = pki.server_certificate(
        root, root_key, side_key.public_key(), ["127.0.0.1"], now=now, days=_LOOPBACK_DAYS
    )
    for name, content in (
        ("site.key", pki.key_pem(mtls)),
        ("node", node),
        ("loopback-ca.crt", pki.pem(root)),
        ("loopback.key", pki.key_pem(side_key)),
        ("loopback.pem", pki.pem(side)),
    ):
        write_private(place.pki / name, content)
    write_private(place.path / "x25519.key", round_key.private_bytes_raw().hex().encode())


def _check_keys(home: Home, place: Place, opened: Opened) -> None:
    """Check that all private keys of the seat are here: a kit alone opens nothing."""
    seat = opened.federation.site(opened.kit.site)
    try:
        mtls: Any = load_pem_private_key((place.pki / "site.key").read_bytes(), None)
        node: Any = load_ssh_private_key((place.pki / "node").read_bytes(), None)
        ours = (
            standing.own_keys(home).key,
            round_key(place).public_key().public_bytes_raw().hex(),
            node.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
        )
        opened.certificate.verify_directly_issued_by(opened.authority)
        same = (
            seat is not None
            and ours == (seat.key, seat.x25519, seat.node)
            and seat.certificate == pki.fingerprint(opened.certificate)
            and mtls.public_key() == opened.certificate.public_key()
            and opened.kit.request == papers.digest(read_bytes(place.path / "request.json"))
        )
    except (OSError, ValueError, TypeError, InvalidSignature):
        same = False
    if not same:
        raise TrustRefused(
            "This kit was made for other keys than those of this home.",
            "Take the newest kit, in the home that made the request.",
        )
