"""Takes sites into a federation at its coordinator, and drops them.

Each change is the next signed version of the agreement, written where the gateway reads it anew with every
call: who is dropped is refused from the next message on.

    kits/SITE.json    the kit of each site, to be given out again; nothing in it is secret
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography import x509

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong, NotFound, TrustRefused
from appliance.core.files import write_bytes
from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.security import audit
from appliance.security.people import guard
from appliance.security.trust.identity import Identity
from federated import authority, papers, pki, standing
from federated.description import Federation, Site
from federated.papers import Request
from federated.place import Place

Out = Literal["left", "dropped", "revoked"]
_OUTLASTS = 30  # days, as the authority does


@dataclass(frozen=True, kw_only=True)
class Approved:
    """A site that was taken in: its `kit` goes to it."""

    site: str
    seat: int
    version: int
    kit: bytes


def content_of(said: Request, content: bytes) -> dict[str, str]:
    """What two people agree to who take a site in."""
    return {
        "federation": said.federation,
        "site": said.site,
        "units": str(said.units),
        "words": papers.request_words(content),
        "request": papers.digest(content),
    }


def approve(
    home: Home, content: bytes, *, words: str, who: str, file: Path | None, asked: Callable[[], str]
) -> Approved:
    """Take the site of a request in and make its kit; of a request that was approved before, the same kit.

    `file` holds the authority's key where it is not in the home, `asked` gives its passphrase.

    Raises:
        TrustRefused: an altered request, or other words. ConfigWrong: the name or a key is taken.
        NotFound: there is no such federation, or the key is elsewhere. NeedsApproval: two have not agreed.
    """
    said = papers.read_request(content)
    papers.check_words(words, content, said.site)
    place = standing.at(home, said.federation, "coordinator")
    if done := before(place, said, content):
        return done
    fits(standing.agreed(place), said)
    root_key = authority.key_of(place, file, asked)
    own = standing.own_keys(home)
    with transaction(home) as link:
        federation = standing.agreed(place)
        site, certificate = _seated(place, federation, said, root_key)
        guard.spend(link, home, who, "federate.enrol", said.site, content=content_of(said, content))
        after = standing.next_version(federation, sites=[*federation.sites, site])
        kit = _kit(place, after, certificate, content, own)
        folder = place.path / "kits"
        folder.mkdir(mode=0o700, exist_ok=True)
        write_bytes(folder / f"{site.name}.json", kit)
        standing.put(place, *standing.signed(after, own))
        audit.record(
            link,
            who=who,
            what="federate.enrol",
            target=site.name,
            federation=after.name,
            version=after.version,
            request=papers.digest(content),
            key=site.key,
            certificate=site.certificate,
        )
    return Approved(site=site.name, seat=len(after.sites), version=after.version, kit=kit)


def drop(home: Home, name: str, site: str, *, state: Out, who: str) -> Federation:
    """End a site's part for good; it comes back only with new keys and another name.

    Raises:
        NotFound: no such federation or site. ConfigWrong: it is out already, or this is no coordinator.
    """
    place = standing.at(home, name, "coordinator")
    own = standing.own_keys(home)
    with transaction(home) as link:
        guard.spend(link, home, who, "federate.drop", site)
        federation = standing.agreed(place)
        found = federation.site(site)
        if found is None:
            raise NotFound(
                f"No site of {name} is called {site[:64]}.", f"See: cloister federate status {name}"
            )
        if found.state == state or (found.state != "in" and state != "revoked"):
            raise ConfigWrong(f"{site} is {found.state} already.", f"See: cloister federate status {name}")
        sites = [
            one if one.name != site else one.model_copy(update={"state": state}) for one in federation.sites
        ]
        after = standing.next_version(federation, sites=sites)
        standing.put(place, *standing.signed(after, own))
        audit.record(
            link,
            who=who,
            what="federate.drop",
            target=site,
            federation=name,
            state=state,
            version=after.version,
        )
    return after


def fits(federation: Federation, said: Request) -> None:
    """Check that a site of this request can be taken in.

    Raises:
        ConfigWrong: its name or a key of it belongs to a site already, or the federation has ended.
    """
    if federation.ended or datetime.now(UTC) >= federation.expires:
        raise ConfigWrong(f"{federation.name} has ended.", "Make a new federation: cloister federate init")
    for site in federation.sites:
        if site.name.casefold() == said.site.casefold():
            what = "is called" if site.state == "in" else f"was {site.state} and was called"
            raise ConfigWrong(
                f"A site of {federation.name} {what} {site.name} already.",
                "At the new site: cloister federate request --again --site OTHER-NAME",
            )
        if said.key == site.key or said.x25519 == site.x25519 or said.node == site.node:
            raise ConfigWrong(
                f"{said.site} has a key of {site.name}: one home is one site.",
                "Make the request in a home of its own, or with new keys: --again",
            )
    if said.key == federation.coordinator_key:
        raise ConfigWrong(
            "The coordinator cannot be a site with its own keys.", "Give the site a home of its own."
        )


def before(place: Place, said: Request, content: bytes) -> Approved | None:
    """The same request again: a kit that was lost is given out once more."""
    kept = place.path / "kits" / f"{said.site}.json"
    if not kept.exists():
        return None
    kit = read_bytes(kept)
    opened = papers.read_kit(kit)
    site = standing.agreed(place).site(said.site)
    if opened.kit.request != papers.digest(content) or site is None:
        return None
    if site.state != "in":
        raise ConfigWrong(
            f"{site.name} was approved with this request and is {site.state}.",
            "At the site: cloister federate request --again --site OTHER-NAME",
        )
    return Approved(site=site.name, seat=opened.kit.seat, version=opened.federation.version, kit=kit)


def _seated(
    place: Place, federation: Federation, said: Request, root_key: pki.Key
) -> tuple[Site, x509.Certificate]:
    now = datetime.now(UTC)
    fits(federation, said)
    root = authority.root_of(place)
    days = min((federation.expires - now).days + _OUTLASTS, (root.not_valid_after_utc - now).days)
    made = pki.site_certificate(
        root,
        root_key,
        x509.load_pem_x509_csr(said.csr.encode()),
        said.site,
        now=now,
        days=max(1, days),
    )
    site = Site(
        name=said.site,
        key=said.key,
        x25519=said.x25519,
        node=said.node,
        certificate=pki.fingerprint(made),
        units=said.units,
    )
    return site, made


def _kit(place: Place, after: Federation, made: x509.Certificate, request: bytes, own: Identity) -> bytes:
    content, signature = standing.signed(after, own)
    site = after.sites[-1].name
    if own.key != after.coordinator_key:
        raise TrustRefused(
            "This home has other keys than the federation was made with.",
            "A federation ends with its coordinator's keys: make a new one.",
        )
    return papers.write_kit(
        papers.Kit(
            v=1,
            request=papers.digest(request),
            site=site,
            seat=len(after.sites),
            authority=pki.pem(authority.root_of(place)).decode(),
            certificate=pki.pem(made).decode(),
            agreement=content.decode(),
            agreement_signature=signature.hex(),
        ),
        own.sign,
    )
