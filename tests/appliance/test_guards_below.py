"""Trust, imports, exports, the record of what is installed: asked again below the door, where they change."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import bundle_support as b
import people_support as site
import pytest
import supply_support as supply
from test_security_trust import document

from appliance.core.db import reading, transaction
from appliance.core.errors import BundleRefused, NeedsApproval, NoRoom, NotAllowed
from appliance.core.home import Home
from appliance.models import importing as models
from appliance.models import registry
from appliance.models.registry import Model
from appliance.ops import receiving
from appliance.security.bundle import importing
from appliance.security.bundle.reading import verify
from appliance.security.bundle.releasing import Request, content_of, export
from appliance.security.people import approvals, guard
from appliance.security.supply import baseline
from appliance.security.trust import clock, store
from appliance.security.trust.identity import public

OTHERS = ("olga", "aude", "sam", "eve", "nobody")


@pytest.fixture(autouse=True)
def _their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles of tests are made at b.NOW; the sites' clocks say the same."""
    monkeypatch.setattr("time.time", lambda: float(b.NOW))
    monkeypatch.setattr("appliance.security.trust.clock.last_entries", lambda *parts: 0)


@pytest.fixture
def st_anna(home: Home) -> Home:
    return site.settle_in(home)


def agree(home: Home, action: str, target: str, content: dict[str, str], *, by: str = "sam") -> None:
    with pytest.raises(NeedsApproval) as needs:
        guard.require(home, site.actor(home, by), action, target, content=content)
    assert approvals.vote(home, needs.value.request, site.signer("olga"), yes=True).state == "approved"


def demote(home: Home) -> None:
    """Two people take the operator's role away."""
    from appliance.security.people import changes

    asked = changes.propose_role(home, site.signer("sam"), "ana", "auditor")
    approvals.vote(home, asked.id, site.signer("olga"), yes=True)


# --- models


def gguf(folder: Path) -> Path:
    path = folder / "x.gguf"
    path.write_bytes(b"GGUF and weights")
    return path


def test_models_are_imported_by_an_operator_alone(st_anna: Home, tmp_path: Path) -> None:
    base = Model(name="clinic", kind="base", path=tmp_path, sha256="c" * 64, size=1)
    ways: list[Any] = [
        lambda who: models.import_gguf(st_anna, gguf(tmp_path), "x", check=lambda path: {}, who=who),
        lambda who: models.import_base(st_anna, models.DEMO_BASE, "x", who=who),
        lambda who: models.enter_adapter(st_anna, [], "x", base=base, facts={}, who=who),
    ]
    for way in ways:
        for who in OTHERS:
            with pytest.raises(NotAllowed):
                way(who)
    assert registry.models(st_anna) == [] and list(st_anna.models.iterdir()) == [], "nor is a file left"
    assert ways[0]("ana").name == "x"


def test_the_right_is_that_of_the_moment_when_the_model_is_entered(st_anna: Home, tmp_path: Path) -> None:
    def check(path: Path) -> dict[str, Any]:
        demote(st_anna)
        return {}

    with pytest.raises(NotAllowed):
        models.import_gguf(st_anna, gguf(tmp_path), "x", check=check, who="ana")
    assert registry.models(st_anna) == []


# --- bundles in


def pinned(home: Home, *, kinds: list[str] | None = None) -> None:
    """The centre's card, as two people add it."""
    card = public(b.CENTRE)
    agree(home, "trust.add", card.name, store.pin_content(card, kinds))
    store.pin(home, card, words=card.words, compared_by=["sam", "olga"], kinds=kinds, who="sam")


def bring(home: Home, path: Path, who: str) -> str:
    return receiving.receive(home, path, identity=b.EDGE, check_gguf=lambda path: {}, who=who)[1]


def test_bundles_are_imported_by_an_operator_alone(
    st_anna: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned(st_anna)
    path = b.bundle(tmp_path / "x.clb").path
    for who in OTHERS:
        with monkeypatch.context() as patch, pytest.raises(NotAllowed):
            patch.setattr(importing, "Reader", lambda *parts, **rest: pytest.fail("the bundle was opened"))
            bring(st_anna, path, who)
        with pytest.raises(NotAllowed):
            importing.entered(st_anna, "d" * 64, "x", who=who)
    assert [one.name for one in st_anna.bundles.iterdir() if one.name != ".lock"] == []
    # Who loses the right while the files are read gets nothing in: it is asked where it goes live.
    whole = importing._receive

    def slow(*parts: Any) -> None:
        whole(*parts)
        demote(st_anna)

    monkeypatch.setattr(importing, "_receive", slow)
    with pytest.raises(NotAllowed):
        bring(st_anna, path, "ana")
    assert site.column(st_anna, "SELECT state FROM bundles_in") == []
    assert store.trust(st_anna).floors == {}


def test_an_operator_brings_a_bundle_in(st_anna: Home, tmp_path: Path) -> None:
    pinned(st_anna)
    assert bring(st_anna, b.bundle(tmp_path / "x.clb").path, "ana") == "lora-0007-Q4_K_M"


# --- whom the site trusts


def test_a_card_is_added_by_two_and_for_just_these_kinds(st_anna: Home) -> None:
    card = public(b.CENTRE)
    given: dict[str, Any] = {"words": card.words, "compared_by": ["sam", "olga"]}
    for who in ("ana", "aude", "eve"):
        with pytest.raises(NotAllowed):
            store.pin(st_anna, card, who=who, **given)
    for who in ("sam", "olga"):
        with pytest.raises(NeedsApproval):
            store.pin(st_anna, card, who=who, **given)
    agree(st_anna, "trust.add", card.name, store.pin_content(card, ["adapter"]))
    with pytest.raises(NeedsApproval):
        store.pin(st_anna, card, who="sam", **given)
    store.pin(st_anna, card, who="sam", kinds=["adapter"], **given)
    assert store.trust(st_anna).signers[card.key].kinds == {"adapter"}
    for who in ("ana", "aude", "eve"):
        with pytest.raises(NotAllowed):
            store.revoke(st_anna, card.name, who=who)
    store.revoke(st_anna, card.name, who="sam")
    assert store.trust(st_anna).signers == {}


def test_a_card_put_into_the_database_by_hand_counts_for_nothing(st_anna: Home) -> None:
    pinned(st_anna, kinds=["adapter"])
    card, other = public(b.CENTRE), public(b.OTHER)
    insert = (
        "INSERT INTO trust_pins (key, name, card, kinds, compared_by, pinned, who)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)"
    )
    words = (other.key, other.name, other.content.decode(), '["model"]', '["sam", "olga"]', "2026", "sam")
    site.sql(st_anna, insert, *words)
    assert set(store.trust(st_anna).signers) == {card.key}
    assert set(store.receivers(st_anna)) == {card.name}
    assert [one.counts for one in store.pins(st_anna)] == [False, True]
    # Nor does a request without its signatures, nor more kinds than were agreed to.
    site.sql(
        st_anna,
        "INSERT INTO requests (id, request, used, used_for)"
        " SELECT 'ffffffff', request, used, ? FROM requests",
        f"trust {other.key}",
    )
    assert set(store.trust(st_anna).signers) == {card.key}
    with pytest.raises(NeedsApproval) as needs:
        guard.require(
            st_anna,
            site.actor(st_anna, "sam"),
            "trust.add",
            other.name,
            content=store.pin_content(other, None),
        )
    site.sql(
        st_anna,
        "UPDATE requests SET used = '2026', used_for = ? WHERE id = ?",
        f"trust {other.key}",
        needs.value.request,
    )
    site.sql(
        st_anna,
        "UPDATE trust_pins SET kinds = ? WHERE key = ?",
        '["adapter", "model", "round", "trust"]',
        other.key,
    )
    assert set(store.trust(st_anna).signers) == {card.key}, "asked for by one alone"
    site.sql(st_anna, "UPDATE trust_pins SET kinds = ? WHERE key = ?", '["model"]', card.key)
    assert store.trust(st_anna).signers == {}


def test_trust_goes_on_when_a_person_who_agreed_leaves(st_anna: Home) -> None:
    from appliance.security.passphrase import Cost
    from appliance.security.people import changes

    pinned(st_anna)
    asked = changes.propose_person(
        st_anna, site.signer("sam"), site.new("otto", "security-admin"), cost=Cost()
    )
    approvals.vote(st_anna, asked.id, site.signer("olga"), yes=True)
    asked = changes.propose_removal(st_anna, site.signer("otto"), "sam")
    approvals.vote(st_anna, asked.id, site.signer("olga"), yes=True)
    assert set(store.trust(st_anna).signers) == {b.CENTRE.key}


def test_a_root_document_is_taken_by_two(st_anna: Home, tmp_path: Path) -> None:
    content = document()
    words = store.root_words(store.read_root(content))
    given: dict[str, Any] = {"words": words, "compared_by": ["sam", "olga"]}
    for who, error in (("ana", NotAllowed), ("sam", NeedsApproval)):
        with pytest.raises(error):
            store.accept(st_anna, content, who=who, **given)
    site.sql(st_anna, "INSERT INTO trust_documents VALUES (1, ?, '2026', 'sam')", content.decode())
    assert store.root(st_anna) is None, "put there by hand"
    agree(st_anna, "trust.add", "root", store.root_content(content))
    assert store.accept(st_anna, content, who="sam", **given).version == 1
    # The next one is signed by the root keys known here, but nobody takes it alone and by hand.
    with pytest.raises(NeedsApproval):
        store.accept(st_anna, document(2), who="sam")
    with pytest.raises(NotAllowed):
        store.accept(st_anna, document(2), who="sam", bundled=True)
    assert store.accept(st_anna, document(2), who="ana", bundled=True).version == 2
    assert store.root(st_anna).version == 2  # type: ignore[union-attr]
    site.sql(
        st_anna, "INSERT INTO trust_documents VALUES (3, ?, '2026', 'sam')", document(3, signed=(0,)).decode()
    )
    assert store.root(st_anna).version == 2, "too few signatures"  # type: ignore[union-attr]


# --- what is installed, and the time


def test_what_is_installed_is_recorded_by_the_security_admin(st_anna: Home, tmp_path: Path) -> None:
    place = supply.make_environment(tmp_path, supply.make_wheelhouse(tmp_path / "house"))
    for who in ("ana", "olga", "aude", "eve"):
        with pytest.raises(NotAllowed):
            baseline.record(st_anna, who=who, place=place)
    assert baseline.recorded(st_anna, place) is None and not (st_anna.path / "installed.json").exists()
    assert baseline.record(st_anna, who="sam", place=place)


def test_the_clock_is_repaired_by_two(st_anna: Home) -> None:
    with transaction(st_anna) as link:
        site.vouch(link, b.NOW + 300 * b.DAY)
    why = "the battery was dead"
    for who, error in (("ana", NotAllowed), ("sam", NeedsApproval), ("olga", NeedsApproval)):
        with pytest.raises(error):
            clock.repair(st_anna, b.NOW, who=who, because=why)
    agree(st_anna, clock.REPAIR, clock.TARGET, clock.repair_content(b.NOW, why))
    with pytest.raises(NeedsApproval):
        clock.repair(st_anna, b.NOW - b.DAY, who="sam", because=why)
    clock.repair(st_anna, b.NOW, who="sam", because=why)
    with reading(st_anna) as link:
        assert clock.state(link, b.NOW).floor == b.NOW
    with pytest.raises(NeedsApproval):
        clock.repair(st_anna, b.NOW, who="sam", because=why)


def test_the_clock_says_how_it_stands(home: Home) -> None:
    with transaction(home) as link:
        site.vouch(link, b.NOW)
        found = [clock.state(link, at).state for at in (b.NOW - 1, b.NOW, b.NOW + 401 * b.DAY)]
        assert found == ["behind", "right", "ahead"]


# --- bundles out


def asked(**changes: Any) -> Request:
    given: dict[str, Any] = {
        "sources": tuple(b.contents()),
        "facts": b.FACTS,
        "receivers": (b.EDGE.receiver,),
        "lifetime": 30 * b.DAY,
    }
    return Request(**(given | changes))


def out(home: Home, request: Request, path: Path, who: str = "ana") -> Any:
    return export(home, request, path, identity=b.CENTRE, who=who, seconds=lambda: b.NOW)


def yes(home: Home, request: Request) -> None:
    agree(home, "bundle.export", request.facts.name, content_of(request), by="ana")


def used(home: Home) -> list[object]:
    return site.column(home, "SELECT used_for FROM requests WHERE used IS NOT NULL ORDER BY rowid")


def test_nothing_leaves_without_two_people_who_agreed_to_just_this(st_anna: Home, tmp_path: Path) -> None:
    path = tmp_path / "x.clb"
    for who, error in (("sam", NotAllowed), ("aude", NotAllowed), ("ana", NeedsApproval)):
        with pytest.raises(error):
            out(st_anna, asked(), path, who)
    yes(st_anna, asked(receivers=(b.OTHER.receiver,)))
    with pytest.raises(NeedsApproval):
        out(st_anna, asked(), path)
    assert list(tmp_path.glob("*.clb")) == [] and site.lines(st_anna, "bundle.export.begin") == 0
    yes(st_anna, asked())
    written = out(st_anna, asked(), path)
    assert verify(path, b.EDGE, b.trust()).digest == written.digest
    begun = json.loads(
        str(site.column(st_anna, "SELECT entry FROM audit WHERE entry LIKE '%bundle.export.begin%'")[-1])
    )
    assert sorted(begun["approved_by"]) == ["ana", "olga"]
    assert used(st_anna) == ["bundle 1"]
    with pytest.raises(NeedsApproval):  # their yes was for one
        out(st_anna, asked(), tmp_path / "again.clb")


def test_a_round_leaves_by_one_person_who_may_carry_it(st_anna: Home, tmp_path: Path) -> None:
    facts = b.Facts(kind="round", name="north-0001")
    sources = (b.bytes_source(b"{}", "round.json", "the answer"),)
    request = Request(sources=sources, facts=facts, receivers=(b.EDGE.receiver,), lifetime=b.DAY)
    for who in OTHERS:
        with pytest.raises(NotAllowed):
            export(st_anna, request, tmp_path / "x.clb", identity=b.OTHER, who=who)
    written = export(st_anna, request, tmp_path / "x.clb", identity=b.OTHER, who="ana")
    assert written.manifest.kind == "round"
    with pytest.raises(NeedsApproval):  # anything else still takes two
        out(st_anna, asked(), tmp_path / "y.clb", "ana")


def test_an_export_that_failed_has_used_nothing(
    st_anna: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, path = asked(), tmp_path / "x.clb"
    yes(st_anna, request)
    whole = request.sources[0]
    broken = asked(sources=(b.Source(entry=whole.entry, open=lambda: BytesIO(b"")), *request.sources[1:]))
    with pytest.raises(BundleRefused):
        out(st_anna, broken, path)
    monkeypatch.setattr("appliance.core.files.free_space", lambda folder: 1000)
    with pytest.raises(NoRoom):
        out(st_anna, request, path)
    monkeypatch.undo()
    monkeypatch.setattr("time.time", lambda: float(b.NOW))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(NoRoom):
        out(st_anna, request, path)
    monkeypatch.undo()
    assert used(st_anna) == [] and list(tmp_path.glob("*x.clb*")) == []
    assert out(st_anna, request, path).manifest.seq == 4


def test_a_yes_that_is_gone_when_the_bundle_is_whole_lets_nothing_out(st_anna: Home, tmp_path: Path) -> None:
    """The spend is in the transaction that puts the bundle on record, not only before it."""
    request, path = asked(), tmp_path / "x.clb"
    yes(st_anna, request)
    first = request.sources[0]

    class Late:
        """A source during whose reading somebody takes the yes back."""

        def __enter__(self) -> BytesIO:
            (waiting,) = approvals.pending(st_anna)
            approvals.vote(st_anna, waiting.id, site.signer("olga"), yes=False)
            return BytesIO(b"GGUF" + bytes(range(256)) * 40)

        def __exit__(self, *parts: object) -> None:
            return None

    late = asked(sources=(b.Source(entry=first.entry, open=Late), *request.sources[1:]))
    with pytest.raises(NeedsApproval):
        out(st_anna, late, path)
    assert list(tmp_path.glob("*x.clb*")) == [] and site.lines(st_anna, "bundle.export") == 0
