"""Rows that grant something, edited by one with the database and perhaps a key: none gives more so."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import bundle_support as b
import people_support as site
import pytest
from test_guards_below import agree, pinned
from test_log_renewal import cut, fill, repair
from test_security_trust import document

from appliance.core.db import reading, transaction
from appliance.core.errors import ApplianceError, ConfigWrong, NeedsApproval
from appliance.core.home import Home
from appliance.security import audit, canonical
from appliance.security.log import renewal
from appliance.security.people import approvals, breakglass, guard, mode, persons, signing
from appliance.security.people.persons import utc_now
from appliance.security.people.rows import text
from appliance.security.trust import store
from appliance.security.trust.identity import public
from appliance.security.trust.logged import logged

REASON = "the night shift has no operator"


@pytest.fixture
def st_anna(home: Home) -> Home:
    return site.settle_in(home)


def entry(home: Home, monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """An audit entry of a clock that is set so many days ahead or back."""
    said = (utc_now() + timedelta(days=days)).isoformat(timespec="milliseconds")
    with monkeypatch.context() as patch, transaction(home) as link:
        patch.setattr(audit, "now", lambda: said)
        audit.record(link, who="mira", what="test", target="x")


def test_people_are_not_talked_away_in_the_file_alone(st_anna: Home) -> None:
    held = json.loads(st_anna.people.read_bytes())
    st_anna.people.write_text(json.dumps(held | {"mode": mode.SINGLE}))
    for ask in (mode.mode, persons.load, mode.statement):
        with pytest.raises(ApplianceError, match="speaks of one person"):
            ask(st_anna)


# --- approvals


def export(home: Home) -> str:
    """Two people agree to an export; the id of their request."""
    agree(home, "bundle.export", "lora", {"to": "north"}, by="ana")
    return str(site.column(home, "SELECT id FROM requests ORDER BY rowid DESC LIMIT 1")[0])


def spend(home: Home, **more: Any) -> None:
    with transaction(home) as link:
        guard.spend(link, home, "ana", "bundle.export", "lora", content={"to": "north"}, **more)


def test_a_clock_set_back_revives_no_request(st_anna: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    export(st_anna)
    entry(st_anna, monkeypatch, 2)
    entry(st_anna, monkeypatch, 0)  # the clock was set back, and the newest entry says so
    with pytest.raises(NeedsApproval):
        spend(st_anna)


def test_a_request_of_a_clock_that_was_ahead_does_not_last(st_anna: Home) -> None:
    ahead = utc_now() + timedelta(days=3650)
    asked = approvals.ask(
        st_anna, "ana", "bundle.export", "lora", {"to": "north"}, signer=site.signer("ana"), now=ahead
    )
    approvals.vote(st_anna, asked.id, site.signer("olga"), yes=True, now=ahead)
    with pytest.raises(NeedsApproval):
        spend(st_anna)


def test_a_request_from_before_a_new_log_stays_void_or_used(st_anna: Home) -> None:
    export(st_anna)
    spend(st_anna)
    fill(st_anna, 3)
    cut(st_anna)
    repair(st_anna, "olga")
    assert repair(st_anna, "sam").done is not None
    site.sql(st_anna, "UPDATE requests SET used = NULL, used_for = NULL")
    with pytest.raises(NeedsApproval):
        spend(st_anna)


@pytest.mark.parametrize("ends", ["never used", "other job"])
def test_what_a_request_was_used_for_is_what_the_log_says(st_anna: Home, ends: str) -> None:
    export(st_anna)
    if ends == "other job":
        spend(st_anna, used_for="job 0001")
    given = ("bundle.export", "lora", {"to": "north"})
    site.sql(st_anna, "UPDATE requests SET used = '2026', used_for = 'job 0002'")
    with reading(st_anna) as link:
        for ask in (approvals.used_by, approvals.bore_out):
            assert not ask(link, st_anna, *given, "job 0002")
    if ends == "other job":
        site.sql(st_anna, "UPDATE requests SET used_for = 'job 0001'")
        with reading(st_anna) as link:
            assert approvals.used_by(link, st_anna, *given, "job 0001")


def test_requests_that_nobody_signed_are_told(st_anna: Home) -> None:
    export(st_anna)
    spend(st_anna)
    assert approvals.unproven(st_anna) == []
    (name,) = site.column(st_anna, "SELECT id FROM requests")
    site.sql(st_anna, "DELETE FROM approvals WHERE person = 'olga'")
    assert approvals.unproven(st_anna) == [name]
    site.sql(st_anna, "DELETE FROM requests")
    assert approvals.unproven(st_anna) == [name], "the log tells of it"


# --- emergencies


def forge(home: Home, *, minutes: int, logged: bool, case: str = "ffffffff") -> None:
    """As one writes it who has the database and a key of their own."""
    said = {"v": 1, "id": case, "person": "aude", "reason": REASON}
    said |= {"at": text(utc_now()), "until": text(utc_now() + timedelta(minutes=minutes))}
    signature = signing.sign(site.signer("aude"), "emergency", said)
    held = canonical.encode(said).decode()
    site.sql(
        home, "INSERT INTO emergencies (id, statement, signature) VALUES (?, ?, ?)", case, held, signature
    )
    if logged:
        with transaction(home) as link:
            audit.record(link, who="aude", what="emergency.start", target=case, until=said["until"])


@pytest.mark.parametrize(
    ("minutes", "logged", "runs"), [(30, True, True), (30, False, False), (61, True, False)]
)
def test_an_emergency_runs_by_the_log_and_for_an_hour_at_most(
    st_anna: Home, minutes: int, logged: bool, runs: bool
) -> None:
    forge(st_anna, minutes=minutes, logged=logged)
    aude = site.actor(st_anna, "aude")
    assert (guard.why_not(st_anna, aude, "serve.start") is None) == runs


def test_an_emergency_that_ended_does_not_go_on(st_anna: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    breakglass.start(st_anna, site.signer("aude"), REASON)
    breakglass.end(st_anna, "aude")
    site.sql(st_anna, "UPDATE emergencies SET ended = NULL")
    aude = site.actor(st_anna, "aude")
    assert guard.why_not(st_anna, aude, "serve.start") is not None
    breakglass.start(st_anna, site.signer("sam"), REASON)
    sam = site.actor(st_anna, "sam")
    assert guard.why_not(st_anna, sam, "serve.start") is None
    entry(st_anna, monkeypatch, 1)
    entry(st_anna, monkeypatch, 0)  # the clock was set back
    assert guard.why_not(st_anna, sam, "serve.start") is not None


def test_a_second_emergency_before_the_review_opens_nothing(st_anna: Home) -> None:
    breakglass.start(st_anna, site.signer("aude"), REASON)
    breakglass.end(st_anna, "aude")
    forge(st_anna, minutes=30, logged=True)
    assert guard.why_not(st_anna, site.actor(st_anna, "aude"), "serve.start") is not None


# --- trust


@pytest.fixture
def _their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles of tests are made at b.NOW; the sites' clocks say the same."""
    monkeypatch.setattr("time.time", lambda: float(b.NOW))
    monkeypatch.setattr("appliance.security.trust.clock.last_entries", lambda *parts: 0)


def test_a_key_that_ended_stays_so(st_anna: Home) -> None:
    pinned(st_anna)
    card = public(b.CENTRE)
    store.revoke(st_anna, card.name, who="sam")
    site.sql(st_anna, "UPDATE trust_pins SET revoked = NULL")
    assert store.trust(st_anna).signers == {} and store.receivers(st_anna) == {}
    assert card.key in store.trust(st_anna).revoked
    # Also when the log that says so is set aside.
    fill(st_anna, 2)
    cut(st_anna)
    repair(st_anna, "olga")
    repair(st_anna, "sam")
    site.sql(st_anna, "UPDATE trust_pins SET revoked = NULL")
    assert store.trust(st_anna).signers == {}


def test_a_newer_card_ends_the_old_one_for_good(home: Home) -> None:
    from appliance.security.trust.identity import new_identity

    cards = [public(new_identity("north", "site", key_epoch=epoch)) for epoch in (1, 2)]
    for card in cards:
        store.pin(home, card, words=card.words, compared_by=["joe", "mira"], who="mira")
    site.sql(home, "UPDATE trust_pins SET revoked = NULL")
    assert set(store.trust(home).signers) == {cards[1].key}


@pytest.mark.usefixtures("_their_time")
def test_an_older_root_document_is_not_put_back(home: Home) -> None:
    words = store.root_words(store.read_root(document()))
    store.accept(home, document(), words=words, compared_by=["joe", "mira"], who="mira")
    store.accept(home, document(2), who="mira")
    assert store.root(home).version == 2  # type: ignore[union-attr]
    site.sql(home, "DELETE FROM trust_documents WHERE version = 2")
    assert store.root(home) is None and store.trust(home).signers == {}


@pytest.mark.usefixtures("_their_time")
def test_the_numbers_of_bundles_that_came_in_stay_known(st_anna: Home, tmp_path: Path) -> None:
    from test_guards_below import bring

    from appliance.core.errors import BundleRefused

    pinned(st_anna)
    path = b.bundle(tmp_path / "x.clb").path
    bring(st_anna, path, "ana")
    with reading(st_anna) as link:
        assert logged(link).floors == store.trust(st_anna).floors != {}
    for table in ("trust_floors", "bundles_in", "models", "reports"):
        site.sql(st_anna, f"DELETE FROM {table}")  # noqa: S608
    with pytest.raises(BundleRefused):
        bring(st_anna, path, "ana")


# --- the log that is begun anew


def waiting(home: Home) -> Path:
    return home.path / "damaged-logs" / "pending.json"


def test_nobody_signs_a_repair_that_nobody_asked_for(st_anna: Home) -> None:
    fill(st_anna)
    cut(st_anna)
    repair(st_anna, "olga", "the disk had bad sectors")
    held = canonical.decode(waiting(st_anna).read_bytes())
    waiting(st_anna).write_bytes(canonical.encode(held | {"signatures": {}}))
    assert renewal.waiting(st_anna) is None
    with pytest.raises(ConfigWrong, match="reason"):
        repair(st_anna, "sam", "")


@pytest.mark.parametrize("lie", ["entries", "intact", "checkpoint", "damages", "site"])
def test_what_the_first_made_up_the_second_does_not_sign(st_anna: Home, lie: str) -> None:
    fill(st_anna)
    cut(st_anna)
    told = repair(st_anna, "olga", "the disk had bad sectors").statement
    with reading(st_anna) as link:
        changes: dict[str, Any] = {
            "entries": {"entries": 3, "log": renewal._rows_hash(link, 3)},
            "intact": {"intact": told["entries"] + 1},
            "checkpoint": {"checkpoint_size": 3, "checkpoint_root": "ab" * 32},
            "damages": {"damages": []},
            "site": {"site": "St. Mary"},
        }
    said = told | changes[lie]
    signature = signing.sign(site.signer("olga"), renewal.REPAIR, said)
    waiting(st_anna).write_bytes(canonical.encode({"statement": said, "signatures": {"olga": signature}}))
    with pytest.raises(ConfigWrong, match="reason"):
        repair(st_anna, "sam", "")
    assert renewal.waiting(st_anna) is not None
    waiting(st_anna).write_bytes(
        canonical.encode(
            {
                "statement": told,
                "signatures": {"olga": signing.sign(site.signer("olga"), renewal.REPAIR, told)},
            }
        )
    )
    assert repair(st_anna, "sam", "").done is not None
