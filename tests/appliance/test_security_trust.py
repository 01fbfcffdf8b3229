"""Whom a site trusts: cards and their words, pins, the root document, revocation, and the time."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundle_support as b
import people_support as site
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core.db import reading, transaction
from appliance.core.errors import ConfigWrong, NotFound, TrustRefused
from appliance.core.home import Home
from appliance.security import audit, canonical
from appliance.security.bundle.importing import import_bundle
from appliance.security.log import tree
from appliance.security.trust import clock, root, store
from appliance.security.trust.identity import identity_of, new_identity, public, read_card
from appliance.security.trust.trust import AHEAD, MAY_SIGN
from appliance.security.trust.words import COUNT, WORDS, fingerprint, same_words, words_of


def test_the_words_are_1024_and_told_apart_by_their_first_letters() -> None:
    assert len(WORDS) == len({word[:4] for word in WORDS}) == 1024
    assert all(3 <= len(word) <= 8 and word.isalpha() and word.islower() for word in WORDS)


def test_words_are_the_first_80_bits_of_the_fingerprint() -> None:
    words = words_of(b.CENTRE.key).split()
    number = 0
    for word in words:
        number = number << 10 | WORDS.index(word)
    assert len(words) == COUNT and number.to_bytes(10, "big") == fingerprint(b.CENTRE.key)[:10]
    assert same_words("  " + words_of(b.CENTRE.key).upper().replace(" ", "  "), b.CENTRE.key)
    assert not same_words(words_of(b.EDGE.key), b.CENTRE.key) and not same_words("", b.CENTRE.key)


def test_an_identity_and_its_card_survive_as_bytes() -> None:
    made = new_identity("branch", "site", key_epoch=3)
    again = identity_of(made.secret())
    assert again.secret() == made.secret() and again.key == made.key and again.receiver == made.receiver
    card = public(made)
    assert read_card(card.content + b"\n") == card
    assert (card.name, card.role, card.key_epoch, card.key) == ("branch", "site", 3, made.key)
    secrets = [made.signing.private_bytes_raw(), made.x25519.private_bytes_raw()]
    assert not any(one.hex().encode() in card.content for one in secrets)
    with pytest.raises(ConfigWrong):
        new_identity("a b", "site")
    with pytest.raises(ConfigWrong):
        new_identity("ab", "boss")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda held: held.update(name="mallory"),
        lambda held: held.update(role="release"),
        lambda held: held.update(key_epoch=9),
        lambda held: held.update(x25519="0" * 64),
        lambda held: held.update(mlkem768=held["mlkem768"][:-2] + "00"),
        lambda held: held.update(sign=b.CENTRE.key),
        lambda held: held.update(more=1),
        lambda held: held.update(signature="0" * 128),
        lambda held: held.update(v=True),
    ],
)
def test_a_card_that_was_touched_is_refused(spoil: Callable[[dict[str, Any]], None]) -> None:
    held = canonical.decode(public(b.OTHER).content)
    spoil(held)
    with pytest.raises(TrustRefused):
        read_card(canonical.encode(held))


def pin(home: Home, identity: Any, **changes: Any) -> store.Pin:
    card = public(identity)
    given = {"words": card.words, "compared_by": ["mira", "joe"], "who": "mira"} | changes
    return store.pin(home, card, **given)


def test_a_card_is_pinned_by_its_words_and_two_people(home: Home) -> None:
    for wrong in (
        {"words": words_of(b.OTHER.key)},
        {"words": ""},
        {"compared_by": ["mira"]},
        {"compared_by": ["mira", "mira ", ""]},
    ):
        with pytest.raises(TrustRefused):
            pin(home, b.CENTRE, **wrong)
    assert store.trust(home).signers == {}
    made = pin(home, b.CENTRE)
    assert made.compared_by == ("joe", "mira")
    signer = store.trust(home).signers[b.CENTRE.key]
    assert signer.kinds == set(MAY_SIGN["release"]) and "joe and mira" in signer.vouched
    assert store.receivers(home) == {"centre": b.CENTRE.receiver}
    with reading(home) as link:
        entry = audit.tail(link, 1)[0]
    assert entry["what"] == "trust.add" and entry["compared_by"] == ["joe", "mira"]
    assert pin(home, b.OTHER, kinds=["round"]).signer.kinds == {"round"}
    with pytest.raises(ConfigWrong):
        pin(home, b.EDGE, kinds=["pickle"])


def test_a_new_card_of_a_partner_follows_the_old_one(home: Home) -> None:
    pin(home, b.CENTRE)
    with pytest.raises(TrustRefused):
        pin(home, new_identity("centre", "release"))  # same epoch, another key
    rotated = new_identity("centre", "release", key_epoch=2)
    pin(home, rotated)
    trust = store.trust(home)
    assert set(trust.signers) == {rotated.key} and b.CENTRE.key in trust.revoked
    with pytest.raises(TrustRefused):
        pin(home, b.CENTRE)


def test_what_is_revoked_stays_so(home: Home) -> None:
    pin(home, b.CENTRE)
    assert store.revoke(home, "centre", who="mira") == b.CENTRE.key
    trust = store.trust(home)
    assert trust.signers == {} and trust.revoked == {b.CENTRE.key} and store.receivers(home) == {}
    with pytest.raises(TrustRefused):
        pin(home, b.CENTRE)
    with pytest.raises(NotFound):
        store.revoke(home, "centre", who="mira")


# --- the root

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(1, 7)]
PUBLIC = [key.public_key().public_bytes_raw().hex() for key in KEYS]


def document(version: int = 1, *, signed: tuple[int, ...] = (0, 1), **changes: Any) -> bytes:
    given: dict[str, Any] = {
        "version": version,
        "created": b.NOW,
        "expires": b.NOW + 365 * b.DAY,
        "roots": PUBLIC[:3],
        "signers": [(public(b.CENTRE), None), (public(b.EDGE), None)],
    }
    content = root.draft(**(given | changes))
    for number in signed:
        content = root.sign(content, KEYS[number])
    return content


def accept(home: Home, content: bytes, **changes: Any) -> root.Root:
    first = {
        "words": store.root_words(root.read_root(content)),
        "compared_by": ["mira", "joe"],
        "who": "mira",
    }
    return store.accept(home, content, **(first | changes))


def test_the_first_root_is_compared_by_two_people(home: Home) -> None:
    for wrong in ({"words": ""}, {"words": words_of(b.EDGE.key)}, {"compared_by": ["mira"]}):
        with pytest.raises(TrustRefused):
            accept(home, document(), **wrong)
    accept(home, document())
    signers = store.trust(home).signers
    assert set(signers) == {b.CENTRE.key, b.EDGE.key} and signers[b.EDGE.key].kinds == frozenset()
    assert signers[b.CENTRE.key].until == b.NOW + 365 * b.DAY
    assert set(store.receivers(home)) == {"centre", "edge-12"}
    accept(home, document(), words="", compared_by=[])  # the same again changes nothing


@pytest.mark.parametrize(
    "content",
    [
        lambda: document(2, signed=(0,)),  # one of three
        lambda: document(2, signed=(3, 4)),  # strangers
        lambda: document(3),  # a version left out
        lambda: document(1, expires=b.NOW + 9),  # the same version, another document
        lambda: document(2, roots=PUBLIC[3:], signed=(3, 4)),  # new keys alone: a takeover
        lambda: document(2, roots=PUBLIC[3:], signed=(0, 1)),  # old keys alone
        lambda: document(2, created=b.NOW + 40 * AHEAD, expires=b.NOW + 41 * AHEAD),
    ],
)
def test_a_next_root_that_does_not_follow_is_refused(home: Home, content: Callable[[], bytes]) -> None:
    accept(home, document())
    with pytest.raises(TrustRefused):
        accept(home, content())
    assert store.root(home).version == 1  # type: ignore[union-attr]


def test_root_keys_are_replaced_by_old_and_new_together(home: Home) -> None:
    accept(home, document())
    accept(home, document(2, roots=PUBLIC[2:5], signed=(0, 1, 3, 4), revoked=[b.EDGE.key]))
    with pytest.raises(TrustRefused):
        accept(home, document(3, roots=PUBLIC[2:5], signed=(0, 1), revoked=[b.EDGE.key]))
    with pytest.raises(TrustRefused):
        accept(home, document(3, roots=PUBLIC[2:5], signed=(3, 4)))  # forgets what was revoked
    accept(home, document(3, roots=PUBLIC[2:5], signed=(3, 4), revoked=[b.EDGE.key]))
    assert b.EDGE.key in store.trust(home).revoked and "edge-12" not in store.receivers(home)


def test_an_epoch_never_goes_back(home: Home) -> None:
    later = new_identity("centre", "release", key_epoch=2)
    accept(home, document(signers=[(public(later), None)]))
    with pytest.raises(TrustRefused):
        accept(home, document(2))


def test_a_threshold_below_two_of_three_is_no_document() -> None:
    for wrong in ({"threshold": 1}, {"roots": PUBLIC[:2]}, {"roots": [PUBLIC[0]] * 3}, {"threshold": 4}):
        with pytest.raises(TrustRefused):
            document(**wrong)
    twice = json.loads(document())
    twice["signatures"] *= 2
    with pytest.raises(TrustRefused):
        root.read_root(canonical.encode(twice))


# --- the time


def entry_at(link: sqlite3.Connection, at: str) -> None:
    entry = json.dumps({"at": at, "who": "x"}).encode()
    leaf = hashlib.sha256(b"\0" + entry).digest()
    found = link.execute("INSERT INTO audit (entry, leaf) VALUES (?, ?)", (entry.decode(), leaf.hex()))
    tree.append(link, int(found.lastrowid or 0), leaf)


def test_a_clock_set_back_revives_nothing(home: Home) -> None:
    with transaction(home) as link:
        site.vouch(link, b.NOW)
        site.vouch(link, b.NOW - 5)
        entry_at(link, "2027-01-20T00:00:00+00:00")  # b.NOW is 2027-01-15
    floor = store.trust(home, seconds=lambda: 0).now
    assert floor == 1_800_403_200
    assert store.trust(home, seconds=lambda: floor + 7).now == floor + 7


def test_a_clock_far_ahead_moves_nothing_that_stays(home: Home) -> None:
    with transaction(home) as link:
        site.vouch(link, b.NOW)
        entry_at(link, "2037-01-01T00:00:00+00:00")
        entry_at(link, "nonsense")
    assert store.trust(home, seconds=lambda: b.NOW + 60).now == b.NOW + 60


def test_a_wrong_time_that_got_in_is_repaired(home: Home) -> None:
    with transaction(home) as link:
        site.vouch(link, b.NOW + 300 * b.DAY)
        entry_at(link, "2028-01-01T00:00:00+00:00")
    with pytest.raises(TrustRefused):
        clock.repair(home, clock.SOFTWARE - 1, who="mira", because="the battery was dead")
    with pytest.raises(ConfigWrong):
        clock.repair(home, b.NOW, who="mira", because="")
    clock.repair(home, b.NOW, who="mira", because="the battery was dead")
    assert store.trust(home, seconds=lambda: 0).now == b.NOW
    with reading(home) as link:
        entry = audit.tail(link, 1)[0]
    assert (entry["what"], entry["because"]) == ("clock.repair", "the battery was dead")
    with transaction(home) as link:
        site.vouch(link, b.NOW + 10)
    assert store.trust(home, seconds=lambda: 0).now == b.NOW + 10


@pytest.mark.parametrize("change", ["newest = 4000000000", "newest = 0", "audit_seq = 1000000"])
def test_a_time_that_was_written_into_the_row_is_told_and_not_believed(home: Home, change: str) -> None:
    with transaction(home) as link:
        site.vouch(link, b.NOW)
        entry_at(link, "2027-01-20T00:00:00+00:00")
        before = clock.floor(link)
        assert clock.state(link, before).state == "right"
    site.sql(home, f"UPDATE trust_clock SET {change}")  # noqa: S608
    with reading(home) as link:
        found = clock.state(link, before)
        assert (found.floor, found.state, found.vouched) == (before, "edited", b.NOW)
        assert "somebody has changed it" in clock.state(link, before - 1).why
    assert store.trust(home, seconds=lambda: 0).now == before
    clock.repair(home, b.NOW, who="mira", because="the row was edited")
    with reading(home) as link:
        assert clock.state(link, b.NOW).state == "right"
    site.sql(home, "UPDATE trust_clock SET newest = ?", b.NOW - 5)
    with reading(home) as link:
        assert (clock.state(link, b.NOW).state, clock.floor(link)) == ("edited", b.NOW)


def test_entries_of_an_older_version_leave_the_time_to_the_row(home: Home) -> None:
    with transaction(home) as link:
        clock.vouched(link, b.NOW)
        audit.record(link, who="m", what="bundle.import", target="x")
        assert clock.floor(link) == b.NOW and clock.state(link, b.NOW).state == "right"
    clock.repair(home, b.NOW - 50, who="mira", because="from here on the log tells")
    site.sql(home, "UPDATE trust_clock SET newest = 0")
    with reading(home) as link:
        assert clock.floor(link) == b.NOW - 50


@pytest.mark.usefixtures("_their_time")
def test_what_came_in_is_in_the_log_with_its_time(home: Home, tmp_path: Path) -> None:
    b.pinned(home)
    import_bundle(home, b.bundle(tmp_path / "x.clb").path, identity=b.EDGE, who="m")
    site.sql(home, "UPDATE trust_clock SET newest = 0")
    with reading(home) as link:
        assert clock.known(link).newest == b.NOW - b.DAY


@pytest.fixture
def _their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: float(b.NOW))
