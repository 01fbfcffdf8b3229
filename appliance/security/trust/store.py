"""Whom this site trusts, kept in its database: the root document, and cards pinned by hand.

Sites without an offline root pin a partner's card after two people have compared its eight words. A
revoked key stays revoked. Every change has its audit line.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from appliance.core.db import reading, transaction
from appliance.core.errors import ConfigWrong, NotFound, TrustRefused
from appliance.core.events import now
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.bundle.format import KINDS
from appliance.security.trust import clock
from appliance.security.trust.identity import Card, Receiver, read_card
from appliance.security.trust.root import Root, check_next, read_root
from appliance.security.trust.trust import AHEAD, Signer, Trust, signer_of
from appliance.security.trust.words import same_words, words_of


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A card taken by hand, with who compared its words."""

    card: Card
    signer: Signer
    compared_by: tuple[str, ...]
    pinned: str
    revoked: str | None


def pin(
    home: Home,
    card: Card,
    *,
    words: str,
    compared_by: Sequence[str],
    kinds: Sequence[str] | None = None,
    who: str,
) -> Pin:
    """Trust a card whose words were compared by two people; a new card of a partner ends its old one.

    Raises:
        TrustRefused: other words, fewer than two people, a revoked key, or an older key epoch than is known.
        ConfigWrong: a kind that there is not.
    """
    if not same_words(words, card.key):
        raise TrustRefused(
            f"These are not the words of {card.name}'s card.",
            "Do not take it: compare again, by telephone or face to face.",
        )
    people = tuple(sorted({name.strip() for name in compared_by} - {""}))
    if len(people) < 2:
        raise TrustRefused(
            "Two people compare the words, and both are named.", "Add --compared-by NAME twice."
        )
    if kinds is not None and not set(kinds) <= set(KINDS):
        raise ConfigWrong("There is no such kind of bundle.", f"Choose of: {', '.join(KINDS)}.")
    signer = signer_of(card, kinds)
    with transaction(home) as link:
        if card.key in _trust(link, 0).revoked:
            raise TrustRefused(f"This key of {card.name} was revoked.", "Ask for a card with a new key.")
        for old in _pins(link):
            if old.card.name != card.name or old.revoked:
                continue
            if card.key_epoch < old.card.key_epoch or (
                card.key != old.card.key and card.key_epoch == old.card.key_epoch
            ):
                raise TrustRefused(
                    f"The card does not follow on the one that {card.name} has here (key epoch"
                    f" {old.card.key_epoch}).",
                    f"If it is another site, revoke the old one: cloister trust revoke {card.name}",
                )
            if old.card.key != card.key:
                link.execute("UPDATE trust_pins SET revoked = ? WHERE key = ?", (now(), old.card.key))
        link.execute(
            "INSERT OR REPLACE INTO trust_pins (key, name, card, kinds, compared_by, pinned, who)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                card.key,
                card.name,
                card.content.decode(),
                json.dumps(sorted(signer.kinds)),
                json.dumps(people),
                now(),
                who,
            ),
        )
        audit.record(
            link,
            who=who,
            what="trust.add",
            target=card.name,
            key=card.key,
            role=card.role,
            key_epoch=card.key_epoch,
            kinds=sorted(signer.kinds),
            compared_by=list(people),
        )
        return next(one for one in _pins(link) if one.card.key == card.key)


def revoke(home: Home, name: str, *, who: str) -> str:
    """End the trust in a pinned partner, by name or key; its key. It can never be added again.

    Raises:
        NotFound: no such card is trusted.
    """
    with transaction(home) as link:
        for one in _pins(link):
            if not one.revoked and name in (one.card.name, one.card.key):
                link.execute("UPDATE trust_pins SET revoked = ? WHERE key = ?", (now(), one.card.key))
                audit.record(link, who=who, what="trust.revoke", target=one.card.name, key=one.card.key)
                return one.card.key
    raise NotFound(
        f"No card pinned here is called {name}.", "See `cloister trust show`; a root's signers end with it."
    )


def accept(home: Home, content: bytes, *, words: str = "", compared_by: Sequence[str] = (), who: str) -> Root:
    """Take the next root document; of the first, two people compare the words (`root_words`).

    Raises:
        TrustRefused: not signed by enough root keys, not the next version, or, the first, not compared.
    """
    new = read_root(content)
    people = sorted({name.strip() for name in compared_by} - {""})
    with transaction(home) as link:
        old = _root(link)
        if old is None and (words.lower().split() != root_words(new).split() or len(people) < 2):
            raise TrustRefused(
                "The first trust document is taken when two people have compared the words of its root keys:"
                f" {root_words(new)}",
                'Add --words "..." and --compared-by NAME twice.',
            )
        if old is not None and old.content == new.content:
            return old
        check_next(old, new)
        if new.created > max(int(time.time()), clock.floor(link)) + AHEAD:
            raise TrustRefused(
                "The document was made too far ahead of this machine's time.", "Check the clock."
            )
        link.execute(
            "INSERT INTO trust_documents (version, document, taken, who) VALUES (?, ?, ?, ?)",
            (new.version, new.content.decode(), now(), who),
        )
        clock.vouched(link, new.created)
        audit.record(
            link,
            who=who,
            what="trust.root",
            target=f"version {new.version}",
            expires=new.expires,
            roots=list(new.roots),
            compared_by=people,
        )
    return new


def root_words(root: Root) -> str:
    """The eight words of a document's root keys and threshold."""
    told = f"{root.threshold}:{','.join(sorted(root.roots))}"
    return words_of(hashlib.sha256(told.encode()).hexdigest())


def root(home: Home) -> Root | None:
    """The newest root document, if the site has one."""
    with reading(home) as link:
        return _root(link)


def pins(home: Home) -> list[Pin]:
    """Cards pinned here, also revoked ones, by name."""
    with reading(home) as link:
        return _pins(link)


def trust(
    home: Home,
    *,
    seconds: Callable[[], float] | None = None,
    audit_time: clock.AuditTime | None = None,
) -> Trust:
    """What this site trusts now, to judge a bundle by. `seconds`: its clock."""
    with reading(home) as link:
        return _trust(link, max(int((seconds or time.time)()), clock.floor(link, audit_time)))


def receivers(home: Home) -> dict[str, Receiver]:
    """Whom bundles can be sealed for, by name: whoever is trusted and not revoked."""
    with reading(home) as link:
        held, document = _trust(link, 0), _root(link)
        cards = [*(document.cards if document else ()), *(one.card for one in _pins(link) if not one.revoked)]
    return {card.name: card.receiver for card in cards if card.key not in held.revoked}


def advance(link: sqlite3.Connection, *, signer: str, key_epoch: int, line: str, seq: int) -> bool:
    """Raise a floor in the caller's transaction; False where the number was taken meanwhile."""
    done = link.execute(
        "INSERT INTO trust_floors (signer, key_epoch, line, seq) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (signer, key_epoch, line) DO UPDATE SET seq = excluded.seq WHERE excluded.seq > seq",
        (signer, key_epoch, line, seq),
    )
    return done.rowcount == 1


def _trust(link: sqlite3.Connection, seconds: int) -> Trust:
    document, pinned = _root(link), _pins(link)
    revoked = {one.card.key for one in pinned if one.revoked} | (
        document.revoked if document else frozenset()
    )
    signers = {one.card.key: one.signer for one in pinned if not one.revoked}
    signers |= {one.key: one for one in (document.signers if document else ())}
    rows = link.execute("SELECT signer, key_epoch, line, seq FROM trust_floors")
    floors = {(row["signer"], row["key_epoch"], row["line"]): row["seq"] for row in rows}
    return Trust(now=seconds, signers=signers, revoked=frozenset(revoked), floors=floors)


def _root(link: sqlite3.Connection) -> Root | None:
    row = link.execute("SELECT document FROM trust_documents ORDER BY version DESC LIMIT 1").fetchone()
    return read_root(row["document"].encode()) if row else None


def _pins(link: sqlite3.Connection) -> list[Pin]:
    found = []
    for row in link.execute("SELECT * FROM trust_pins ORDER BY name, pinned"):
        card = read_card(row["card"].encode())
        people = tuple(json.loads(row["compared_by"]))
        signer = replace(
            signer_of(card, json.loads(row["kinds"])), vouched=f"pinned, compared by {' and '.join(people)}"
        )
        found.append(
            Pin(card=card, signer=signer, compared_by=people, pinned=row["pinned"], revoked=row["revoked"])
        )
    return found
