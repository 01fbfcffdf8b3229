"""The part of the door (session.py) for bundles and trust. Plain values in and out.

`verify` and `show` need no database: a home that holds the site's keys is enough, or a file with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from appliance.core.errors import BundleRefused, ConfigWrong, NotFound, TrustRefused
from appliance.core.files import write_bytes
from appliance.core.home import Home, place_of
from appliance.core.reading import read_bytes
from appliance.security.bundle import reading, releasing, show
from appliance.security.bundle.releasing import Request
from appliance.security.trust import rotation, store
from appliance.security.trust.identity import Card, Identity, identity_of, public, read_card
from appliance.security.trust.root import Root
from appliance.security.trust.trust import Signer, Trust, trust_of_cards
from appliance.security.trust.words import words_of
from tui.session_guard import acts, agree, anyone
from tui.site_key import make_site_key, older_keys, site_key, utc_now

if TYPE_CHECKING:
    from tui.session import Session

T = TypeVar("T")
KEMS = {"hybrid": "mlkem768-x25519", "x25519": "x25519"}


@anyone
def bare_home(path: Path | None) -> Home:
    """The home that is meant, neither made nor opened."""
    return Home(path=place_of(path))


# --- this site's keys


@anyone
def identity(home: Home, file: Path | None = None) -> Identity:
    """This site's keys, or those in `file`.

    Raises:
        NotFound: there are none yet. ConfigWrong: they are damaged. Locked: the site is sealed and locked.
    """
    try:
        return identity_of(read_bytes(file or home.identity))
    except OSError as problem:
        raise NotFound(
            "This site has no keys of its own yet.", "Make them: cloister trust init NAME --role site"
        ) from problem


@acts("trust.add")
def make_identity(session: Session, name: str, role: str) -> dict[str, Any]:
    """Keys for this site, which has none yet; its card.

    Raises:
        ConfigWrong: a bad name or role, or there are keys.
    """
    home = session.home
    if home.identity.exists():
        raise ConfigWrong(
            f"This site has keys already: it is {identity(home).name}.", "See them: cloister trust card"
        )
    made = make_site_key(home, session.who, name, role)
    return card_facts(public(made))


@acts("site.read")
def card(session: Session, to: Path | None = None) -> dict[str, Any]:
    """This site's card, written to `to` if given."""
    found = public(identity(session.home))
    if to is not None:
        write_bytes(to, found.content + b"\n")
    return card_facts(found)


@anyone
def card_facts(found: Card) -> dict[str, Any]:
    """A card as plain values."""
    return {
        "name": found.name,
        "role": found.role,
        "key_epoch": found.key_epoch,
        "key": found.key,
        "words": found.words,
        "card": found.content.decode(),
    }


@acts("trust.rotate")
def rotate(session: Session, because: str, *, stolen: bool) -> dict[str, Any]:
    """New keys for this site, once two people have agreed; its new card. See trust/rotation.py."""
    held = rotation.current(session.home)
    agree(session, rotation.RIGHT, held.name, rotation.rotation_content(held, because, stolen=stolen))
    made = rotation.rotate(session.home, who=session.who, because=because, stolen=stolen)
    return card_facts(public(made)) | {"before": held.key}


# --- whom this site trusts


@anyone
def read_card_file(path: Path) -> Card:
    """The card in a file.

    Raises:
        NotFound: no such file. TrustRefused: it is no card.
    """
    return read_card(_content(path))


@acts("site.read")
def trusted(session: Session) -> dict[str, Any]:
    """Everyone this site trusts, with what vouches for them, and the root document."""
    home = session.home
    document = store.root(home)
    known = store.trust(home)
    rows = [
        {
            **_signer_row(one),
            "state": "expired" if one.until is not None and known.now >= one.until else "trusted",
        }
        for one in known.signers.values()
        if one.key not in known.revoked
    ]
    rows += [
        {**_signer_row(one.signer), "state": "unsigned"}
        for one in store.pins(home)
        if not one.counts and not one.revoked
    ]
    gone = [
        {"name": one.card.name, "key": one.card.key, "revoked": one.revoked}
        for one in store.pins(home)
        if one.revoked
    ]
    return {
        "signers": sorted(rows, key=lambda row: str(row["name"])),
        "revoked": gone,
        "root": root_facts(document) if document else None,
        "time_floor": known.now,
    }


@acts("trust.add")
def trust_add(
    session: Session, path: Path, *, words: str, compared_by: Sequence[str], kinds: Sequence[str] | None
) -> dict[str, Any]:
    """Pin the card in `path`; see appliance/security/trust/store.py."""
    card = read_card_file(path)
    agree(session, "trust.add", card.name, store.pin_content(card, kinds or None))
    pin = store.pin(
        session.home, card, words=words, compared_by=compared_by, kinds=kinds or None, who=session.who
    )
    return card_facts(pin.card) | {"kinds": sorted(pin.signer.kinds), "compared_by": list(pin.compared_by)}


@acts("trust.revoke")
def trust_revoke(session: Session, name: str) -> dict[str, Any]:
    """End the trust in a pinned card."""
    return {"name": name, "key": store.revoke(session.home, name, who=session.who), "revoked": True}


@acts("trust.add")
def root_accept(session: Session, path: Path, *, words: str, compared_by: Sequence[str]) -> dict[str, Any]:
    """Take the next root document."""
    document = _content(path)
    agree(session, "trust.add", "root", store.root_content(document))
    found = store.accept(session.home, document, words=words, compared_by=compared_by, who=session.who)
    return root_facts(found)


@anyone
def root_facts(found: Root) -> dict[str, Any]:
    """A root document as plain values."""
    return {
        "version": found.version,
        "expires": show.date_text(found.expires),
        "threshold": found.threshold,
        "roots": list(found.roots),
        "signed_by": found.signed_by(found.roots),
        "words": store.root_words(found),
        "signers": [
            {"name": one.name, "role": one.role, "kinds": sorted(one.kinds), "key_epoch": one.key_epoch}
            for one in found.signers
        ],
        "revoked": sorted(found.revoked),
    }


# --- bundles


@acts("bundle.export")
def request(
    session: Session,
    name: str | None,
    to: Sequence[str],
    *,
    suite: str,
    lifetime: int,
    line: str = "",
    wheelhouse: Path | None = None,
) -> Request:
    """What shall leave: the model called `name` or a `wheelhouse` folder, for the trusted receivers `to`.

    Raises:
        NotFound: no such model or receiver. ConfigWrong, BundleRefused: what cannot leave at all.
        DataRejected: no whole wheelhouse.
    """
    from appliance.ops.exporting import gather, gather_wheelhouse

    if (name is None) == (wheelhouse is None):
        raise ConfigWrong("One thing leaves in a bundle.", "Name a MODEL, or give --wheelhouse DIR.")

    home = session.home
    known = store.receivers(home)
    for one in to:
        if one not in known:
            raise NotFound(
                f"There is no receiver named {one}.",
                "Add its card: cloister trust add CARD, then see trust show.",
            )
    if suite not in KEMS:
        raise ConfigWrong(f"There is no suite {suite[:20]}.", f"Choose {' or '.join(KEMS)}.")
    sources, facts = gather(home, name) if name is not None else gather_wheelhouse(wheelhouse or Path())
    asked = Request(
        sources=sources,
        facts=facts,
        receivers=tuple(known[one] for one in dict.fromkeys(to)),
        kem=KEMS[suite],
        lifetime=lifetime,
        line=line,
    )
    releasing.check_request(asked)
    return asked


@acts("bundle.export")
def export(session: Session, asked: Request, out: Path) -> dict[str, Any]:
    """Write the bundle `out`, once two people have agreed to exactly this request.

    Their yes is used up when the bundle lies there: what fails before needs no new one within its 24 hours.

    Raises:
        NeedsApproval: they have not agreed yet. BundleRefused, NoRoom: as releasing.export.
    """
    agree(session, "bundle.export", asked.facts.name, releasing.content_of(asked))
    written = releasing.export(
        session.home,
        replace(asked, facts=replace(asked.facts, checkpoint=_checkpoint(session.home))),
        out,
        identity=identity(session.home),
        who=session.who,
    )
    return {
        "path": str(written.path),
        "digest": written.digest,
        "size": written.size,
        "seq": written.manifest.seq,
        "expires": show.date_text(written.manifest.expires),
        "name": written.manifest.facts.name,
        "recipients": [one.name for one in asked.receivers],
    }


@anyone
def verify(home: Path | None, path: Path, *, keys: Path | None, cards: Sequence[Path]) -> dict[str, Any]:
    """Read the whole bundle and judge it; what is inside. Changes nothing."""
    place = bare_home(home)
    known = _trust(place, cards)
    return show.inside(_by_any(place, keys, lambda held: reading.verify(path, held, known)))


@anyone
def look(home: Path | None, path: Path, *, keys: Path | None) -> dict[str, Any]:
    """What a bundle says of itself, whoever signed it and however old it is."""
    place = bare_home(home)
    return show.inside(_by_any(place, keys, lambda held: reading.look(path, held, None)))


@acts("bundle.import")
def receive(session: Session, path: Path, *, name: str | None) -> dict[str, Any]:
    """Bring a bundle in and make of it what it is."""
    from appliance.ops.receiving import receive as bring
    from quantize.foreign import check_gguf

    opened, made = _by_any(
        session.home,
        None,
        lambda held: bring(
            session.home, path, identity=held, check_gguf=check_gguf, name=name, who=session.who
        ),
    )
    return show.inside(opened) | {"made": made}


def _trust(home: Home, cards: Sequence[Path]) -> Trust:
    given = trust_of_cards([read_card_file(path) for path in cards], now=int(time.time()))
    if not home.database.exists():
        return given
    known = store.trust(home)
    return replace(known, signers={**known.signers, **given.signers})


def _by_any(home: Home, keys: Path | None, way: Callable[[Identity], T]) -> T:
    """Do it with the site's keys, or with those it had before where the bundle is sealed for them."""
    mine = [identity(home, keys)]
    mine += [] if keys is not None else rotation.opening(home)[1:]
    for held in mine[:-1]:
        try:
            return way(held)
        except BundleRefused as problem:
            if problem.reason != "other-recipient":
                raise
    return way(mine[-1])


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read((1 << 20) + 1)
    except OSError as problem:
        raise NotFound(f"There is no file {path}.", "Check the path.") from problem
    if len(content) > 1 << 20:
        raise TrustRefused("This file is too long for a card or a trust document.", "Check the path.")
    return content


def _signer_row(one: Signer) -> dict[str, Any]:
    return {
        "name": one.name,
        "role": one.role,
        "key": one.key,
        "words": words_of(one.key),
        "kinds": sorted(one.kinds),
        "key_epoch": one.key_epoch,
        "vouched": one.vouched,
    }


def _checkpoint(home: Home) -> str:
    """The audit log as signed now: whoever has the bundle is a witness of it."""
    from appliance.security.log import witness

    signer = site_key(home)
    if signer is None:
        return ""
    return witness.make(home, signer, who="bundle", clock=utc_now, older=older_keys(home)).note.decode()
