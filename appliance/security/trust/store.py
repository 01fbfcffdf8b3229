"""Whom this site trusts, kept in its database: the root document, and cards pinned by hand.

Sites without an offline root pin a partner's card after two people have compared its eight words. A
revoked key stays revoked. Every change has its audit line. Where people have roles, a card and the first
root document count only while the signatures of two people for exactly them are there: rows that somebody
put into the database by hand, or that are from before the site had people, are trusted by nobody. What
ended by the audit log (logged.py) stays ended, whatever the rows say.
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
from appliance.security.people import approvals, guard
from appliance.security.people.mode import SINGLE, mode
from appliance.security.trust import clock
from appliance.security.trust.identity import Card, Receiver, read_card
from appliance.security.trust.logged import logged
from appliance.security.trust.root import Root, check_next, read_root
from appliance.security.trust.trust import AHEAD, Signer, Trust, signer_of
from appliance.security.trust.words import same_words, words_of


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A card taken by hand, with who compared its words. `counts`: where roles are, two signed it."""

    card: Card
    signer: Signer
    compared_by: tuple[str, ...]
    pinned: str
    revoked: str | None
    counts: bool = True


def pin_content(card: Card, kinds: Sequence[str] | None) -> dict[str, str]:
    """What two people agree to who trust a card."""
    may = ", ".join(sorted(signer_of(card, kinds).kinds)) or "nothing"
    return {"name": card.name, "role": card.role, "key": card.key, "may sign": may}


def root_content(content: bytes) -> dict[str, str]:
    """What two people agree to who take a root document."""
    return {"sha256": hashlib.sha256(content.strip()).hexdigest()}


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
        ConfigWrong: a kind that there is not. NeedsApproval: two people have not agreed to `pin_content`.
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
        guard.spend(
            link, home, who, "trust.add", card.name, content=pin_content(card, kinds), used_for=_for(card.key)
        )
        if card.key in _trust(link, home, 0).revoked:
            raise TrustRefused(f"This key of {card.name} was revoked.", "Ask for a card with a new key.")
        for old in _pins(link, home):
            if old.card.name != card.name or old.revoked or not old.counts:
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
        return next(one for one in _pins(link, home) if one.card.key == card.key)


def revoke(home: Home, name: str, *, who: str) -> str:
    """End the trust in a pinned partner, by name or key; its key. It can never be added again.

    Raises:
        NotFound: no such card is trusted. NotAllowed: `who` may not.
    """
    with transaction(home) as link:
        guard.spend(link, home, who, "trust.revoke", name)
        for one in _pins(link, home):
            if not one.revoked and name in (one.card.name, one.card.key):
                link.execute("UPDATE trust_pins SET revoked = ? WHERE key = ?", (now(), one.card.key))
                audit.record(link, who=who, what="trust.revoke", target=one.card.name, key=one.card.key)
                return one.card.key
    raise NotFound(
        f"No card pinned here is called {name}.", "See `cloister trust show`; a root's signers end with it."
    )


def accept(
    home: Home,
    content: bytes,
    *,
    words: str = "",
    compared_by: Sequence[str] = (),
    bundled: bool = False,
    who: str,
) -> Root:
    """Take the next root document; of the first, two people compare the words (`root_words`).

    `bundled`: a bundle brought it. A document after the first may come so without two people here, for the
    root keys known here have signed it.

    Raises:
        TrustRefused: not signed by enough root keys, not the next version, or, the first, not compared.
        NeedsApproval: two people have not agreed to `root_content`. NotAllowed: `who` may not.
    """
    new = read_root(content)
    people = sorted({name.strip() for name in compared_by} - {""})
    with transaction(home) as link:
        old = _root(link, home)
        if old is None and (words.lower().split() != root_words(new).split() or len(people) < 2):
            raise TrustRefused(
                "The first trust document is taken when two people have compared the words of its root keys:"
                f" {root_words(new)}",
                'Add --words "..." and --compared-by NAME twice.',
            )
        if old is not None and old.content == new.content:
            return old
        check_next(old, new)
        if bundled and old is not None:
            guard.spend(link, home, who, "bundle.import", f"trust version {new.version}")
        else:
            told = root_content(new.content)
            guard.spend(link, home, who, "trust.add", "root", content=told, used_for=_for(told["sha256"]))
        if old is None:
            link.execute("DELETE FROM trust_documents")  # those that count for nothing
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
            created=new.created,
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
        return _root(link, home)


def pins(home: Home) -> list[Pin]:
    """Cards pinned here, also revoked ones, by name."""
    with reading(home) as link:
        return _pins(link, home)


def trust(
    home: Home,
    *,
    seconds: Callable[[], float] | None = None,
    audit_time: clock.AuditTime | None = None,
) -> Trust:
    """What this site trusts now, to judge a bundle by. `seconds`: its clock."""
    with reading(home) as link:
        return _trust(link, home, max(int((seconds or time.time)()), clock.floor(link, audit_time)))


def receivers(home: Home) -> dict[str, Receiver]:
    """Whom bundles can be sealed for, by name: whoever is trusted and not revoked."""
    with reading(home) as link:
        held, document = _trust(link, home, 0), _root(link, home)
        pinned = (one.card for one in _pins(link, home) if one.counts and not one.revoked)
        cards = [*(document.cards if document else ()), *pinned]
    return {card.name: card.receiver for card in cards if card.key not in held.revoked}


def advance(link: sqlite3.Connection, *, signer: str, key_epoch: int, line: str, seq: int) -> bool:
    """Raise a floor in the caller's transaction; False where the number was taken meanwhile."""
    done = link.execute(
        "INSERT INTO trust_floors (signer, key_epoch, line, seq) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (signer, key_epoch, line) DO UPDATE SET seq = excluded.seq WHERE excluded.seq > seq",
        (signer, key_epoch, line, seq),
    )
    return done.rowcount == 1


def _trust(link: sqlite3.Connection, home: Home, seconds: int) -> Trust:
    document, pinned = _root(link, home), _pins(link, home)
    revoked = {one.card.key for one in pinned if one.revoked} | (
        document.revoked if document else frozenset()
    )
    signers = {one.card.key: one.signer for one in pinned if one.counts and not one.revoked}
    signers |= {one.key: one for one in (document.signers if document else ())}
    rows = link.execute("SELECT signer, key_epoch, line, seq FROM trust_floors")
    floors = {(row["signer"], row["key_epoch"], row["line"]): row["seq"] for row in rows}
    for place, seq in logged(link).floors.items():
        floors[place] = max(floors.get(place, 0), seq)
    return Trust(now=seconds, signers=signers, revoked=frozenset(revoked), floors=floors)


def _root(link: sqlite3.Connection, home: Home) -> Root | None:
    """The newest root document; where people have roles, of a chain whose first two of them signed for. None
    where the log tells of a newer one: an older one may trust whom that ended."""
    found = _newest_root(link, home)
    return found if found is not None and found.version >= logged(link).root else None


def _newest_root(link: sqlite3.Connection, home: Home) -> Root | None:
    rows = link.execute("SELECT document FROM trust_documents ORDER BY version").fetchall()
    documents = [read_root(row["document"].encode()) for row in rows]
    if not documents or mode(home, link) == SINGLE:
        return documents[-1] if documents else None
    told = root_content(documents[0].content)
    if not approvals.bore_out(link, home, "trust.add", "root", told, _for(told["sha256"])):
        return None
    found = documents[0]
    for one in documents[1:]:
        try:
            check_next(found, one)
        except TrustRefused:
            break
        found = one
    return found


def _for(key: str) -> str:
    """What an approval of trust was used for."""
    return f"trust {key}"


def _pins(link: sqlite3.Connection, home: Home) -> list[Pin]:
    found, single = list[Pin](), mode(home, link) == SINGLE
    ended = logged(link).ended
    for row in link.execute("SELECT * FROM trust_pins ORDER BY name, pinned"):
        card = read_card(row["card"].encode())
        people, kinds = tuple(json.loads(row["compared_by"])), json.loads(row["kinds"])
        signer = replace(signer_of(card, kinds), vouched=f"pinned, compared by {' and '.join(people)}")
        counts = single or approvals.bore_out(
            link, home, "trust.add", card.name, pin_content(card, kinds), _for(card.key)
        )
        found.append(
            Pin(
                card=card,
                signer=signer,
                compared_by=people,
                pinned=row["pinned"],
                revoked=row["revoked"] or ("by the audit log" if card.key in ended else None),
                counts=counts,
            )
        )
    return found
