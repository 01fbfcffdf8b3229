"""Bundles in and out of a home: approvals, numbers, floors, quarantine, the time."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import bundle_support as b
import pytest

from appliance.core.db import reading, transaction
from appliance.core.errors import ApplianceError, BundleRefused, Busy, ConfigWrong, NoRoom
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.bundle import importing, show
from appliance.security.bundle.importing import SIGNED, import_bundle, sweep
from appliance.security.bundle.reading import verify
from appliance.security.bundle.releasing import Request, export, request_digest
from appliance.security.trust import clock, store
from appliance.security.trust.trust import Trust


def bring(home: Home, path: Path, **rest: Any) -> importing.Imported:
    rest.setdefault("trust", known(home))
    return import_bundle(home, path, identity=b.EDGE, who="joe", **rest)


def known(home: Home) -> Trust:
    """Trust at the tests' time: audit lines of these very tests do not count."""
    return store.trust(home, seconds=lambda: b.NOW, audit_time=lambda *parts: 0)


def state(home: Home) -> tuple[list[str], list[tuple[str, str]], int]:
    """Folders, rows, and how many audit lines say that a bundle came in."""
    with reading(home) as link:
        rows = [tuple(row) for row in link.execute("SELECT digest, state FROM bundles_in ORDER BY digest")]
        lines = [one for one in audit.tail(link, 1000) if one["what"] == "bundle.import"]
    return sorted(one.name for one in home.bundles.iterdir() if one.name != ".lock"), rows, len(lines)


def test_a_bundle_comes_in_whole(home: Home, tmp_path: Path) -> None:
    b.pinned(home)
    written = b.bundle(tmp_path / "x.clb", b.contents(b"GGUF one", b"{}", b"licence", b"more"))
    brought = bring(home, written.path)
    assert brought.fresh and brought.folder == home.bundles / written.digest
    found = {file.relative_to(brought.folder).as_posix(): file for file in brought.folder.rglob("*.*")}
    assert found["model.gguf"].read_bytes() == b"GGUF one" and found["more/0.txt"].read_bytes() == b"more"
    assert all(file.stat().st_mode & 0o077 == 0 for file in found.values())
    assert (brought.folder / SIGNED).read_bytes() == brought.opened.signed
    assert state(home) == ([written.digest], [(written.digest, "live")], 1)
    with reading(home) as link:
        entry = audit.tail(link, 1)[0]
    assert (entry["signer_name"], entry["seq"], entry["who"]) == ("centre", 1, "joe")


def test_the_same_or_an_older_number_is_refused(home: Home, tmp_path: Path) -> None:
    b.pinned(home)
    five = b.bundle(tmp_path / "5", seq=5)
    bring(home, five.path)
    importing.entered(home, five.digest, "model", who="joe")
    for seq in (4, 5):
        with pytest.raises(BundleRefused) as problem:
            bring(home, b.bundle(tmp_path / "x", seq=seq).path)
        assert problem.value.reason == "replayed"
    with pytest.raises(BundleRefused) as problem:
        bring(home, five.path)
    assert problem.value.reason == "replayed"
    bring(home, b.bundle(tmp_path / "line", seq=2, line="other").path)
    bring(home, b.bundle(tmp_path / "6", seq=6).path)
    assert len(state(home)[1]) == 3


def test_the_floor_is_checked_again_where_it_is_raised(home: Home, tmp_path: Path) -> None:
    """Of two imports that were judged by the same floors only one gets in."""
    b.pinned(home)
    before = known(home)
    bring(home, b.bundle(tmp_path / "5", seq=5).path)
    with pytest.raises(BundleRefused) as problem:
        bring(home, b.bundle(tmp_path / "4", seq=4).path, trust=before)
    assert problem.value.reason == "replayed"
    assert len(state(home)[0]) == 1 and len(state(home)[1]) == 1


def test_a_new_epoch_has_a_floor_of_its_own(home: Home, tmp_path: Path) -> None:
    b.pinned(home)
    bring(home, b.bundle(tmp_path / "9", seq=9).path)
    with transaction(home) as link:
        assert not store.advance(link, signer=b.CENTRE.key, key_epoch=1, line="model", seq=9)
        assert store.advance(link, signer=b.CENTRE.key, key_epoch=2, line="model", seq=1)


def test_a_refused_bundle_leaves_nothing(home: Home, tmp_path: Path) -> None:
    b.pinned(home)
    path = b.bundle(tmp_path / "x.clb", b.contents(os.urandom(3 << 20))).path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    before = state(home)
    with pytest.raises(BundleRefused):
        bring(home, path)
    assert state(home) == before == ([], [], 0)
    assert store.trust(home).floors == {}, "a number counts only when its bundle is in"


def test_a_folder_that_is_a_link_is_not_followed(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who may write in the home puts a link where a folder of the bundle will be."""
    b.pinned(home)
    outside = tmp_path / "outside"
    outside.mkdir()
    make = os.mkdir

    def swapped(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if path == "reports":
            os.symlink(outside, path, dir_fd=dir_fd)
        else:
            make(path, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", swapped)
    with pytest.raises(OSError, match="Not a directory"):
        bring(home, b.bundle(tmp_path / "x").path)
    assert list(outside.iterdir()) == [] and state(home) == ([], [], 0)


def test_no_room_is_told_before_anything_is_written(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b.pinned(home)
    path = b.bundle(tmp_path / "x").path
    monkeypatch.setattr("appliance.core.files.free_space", lambda folder: 1000)
    monkeypatch.setattr(os, "write", lambda *parts: pytest.fail("written"))
    with pytest.raises(NoRoom):
        bring(home, path)
    assert state(home) == ([], [], 0)


def test_one_import_at_a_time(home: Home, tmp_path: Path) -> None:
    b.pinned(home)
    path = b.bundle(tmp_path / "x").path
    with importing._alone(home):
        with pytest.raises(Busy):
            bring(home, path)
        (home.bundles / ".quarantine-1").mkdir()
        assert sweep(home) == [], "what a running import has is left alone"
    assert sweep(home) == [".quarantine-1"] and bring(home, path).fresh


def test_an_accepted_time_holds_against_a_clock_set_back(home: Home, tmp_path: Path) -> None:
    b.pinned(home)
    late = b.bundle(tmp_path / "late", created=b.NOW + 50 * b.DAY, expires=b.NOW + 90 * b.DAY)
    stale = b.bundle(tmp_path / "stale", seq=2, expires=b.NOW + 40 * b.DAY)
    bring(home, late.path)
    with pytest.raises(BundleRefused) as problem:
        bring(home, stale.path)  # the clock says b.NOW, ten days before it ends
    assert problem.value.reason == "expired"
    clock.repair(home, b.NOW, who="mira", because="the battery was dead")
    bring(home, stale.path)


def test_verify_does_not_touch_a_home(home: Home, tmp_path: Path) -> None:
    b.pinned(home)
    path = b.bundle(tmp_path / "x").path
    before = state(home)
    verify(path, b.EDGE, known(home))
    assert state(home) == before


# --- out


def asked(**changes: Any) -> Request:
    given: dict[str, Any] = {
        "sources": tuple(b.contents()),
        "facts": b.FACTS,
        "receivers": (b.EDGE.receiver,),
        "lifetime": 30 * b.DAY,
    }
    return Request(**(given | changes))


def out(home: Home, request: Request, path: Path, *, who: str = "joe") -> Any:
    return export(home, request, path, identity=b.CENTRE, who=who, seconds=lambda: b.NOW)


def test_what_leaves_is_on_record_before_and_after(home: Home, tmp_path: Path) -> None:
    written = out(home, asked(), tmp_path / "x.clb")
    opened = verify(tmp_path / "x.clb", b.EDGE, b.trust())
    assert opened.digest == written.digest and opened.manifest.expires == b.NOW + 30 * b.DAY
    with reading(home) as link:
        begun, done = audit.tail(link, 2)
    assert (begun["what"], begun["approved_by"], begun["recipients"]) == (
        "bundle.export.begin",
        ["joe"],
        ["edge-12"],
    )
    assert (done["what"], done["target"]) == ("bundle.export", written.digest)


def test_the_hash_that_people_approve_covers_everything_that_leaves() -> None:
    same = request_digest(asked())
    assert request_digest(asked(facts=b.changed(b.FACTS, checkpoint="head 7"))) == same
    others = [
        asked(sources=tuple(b.contents(b"GGUF two", b"{}"))),
        asked(receivers=(b.OTHER.receiver,)),
        asked(receivers=(b.EDGE.receiver, b.OTHER.receiver)),
        asked(kem="x25519"),
        asked(lifetime=31 * b.DAY),
        asked(line="x"),
        asked(facts=b.changed(b.FACTS, license="MIT")),
        asked(facts=b.changed(b.FACTS, privacy=None)),
    ]
    assert len({same, *map(request_digest, others)}) == len(others) + 1


def test_numbers_rise_and_are_never_given_twice(home: Home, tmp_path: Path) -> None:
    assert [out(home, asked(), tmp_path / f"{n}.clb").manifest.seq for n in range(2)] == [1, 2]
    (tmp_path / "gone").mkdir()
    broken = asked(sources=(b.Source(entry=b.contents()[0].entry, open=lambda: BytesIO(b"")),))
    with pytest.raises(BundleRefused):
        out(home, broken, tmp_path / "gone" / "x.clb")
    assert out(home, asked(), tmp_path / "3.clb").manifest.seq == 4
    assert list((tmp_path / "gone").iterdir()) == []


def test_what_cannot_leave_is_told_before_anyone_is_asked(home: Home, tmp_path: Path) -> None:
    for wrong in (asked(receivers=()), asked(lifetime=401 * b.DAY), asked(lifetime=0), asked(kem="rsa")):
        with pytest.raises(ConfigWrong):
            export(home, wrong, tmp_path / "x", identity=b.CENTRE, who="joe")
    with pytest.raises(ApplianceError):
        out(home, asked(), tmp_path / "nowhere" / "x.clb")
    edge = asked()
    with pytest.raises(BundleRefused) as problem:
        export(home, edge, tmp_path / "x", identity=b.EDGE, who="joe")
    assert problem.value.reason == "wrong-kind"


def test_drafts_of_a_killed_export_go(home: Home, tmp_path: Path) -> None:
    dead, alive = tmp_path / ".x.clb.4194399.tmp", tmp_path / f".x.clb.{os.getppid()}.tmp"
    dead.write_bytes(b"half")
    alive.write_bytes(b"half")
    out(home, asked(), tmp_path / "x.clb")
    assert not dead.exists() and alive.exists()


def test_what_leaves_is_shown_in_words() -> None:
    shown = show.leaving(asked())
    assert shown["request"] == request_digest(asked()) and shown["recipients"][0]["name"] == "edge-12"
    assert shown["privacy"] == "eps 3.1 at delta 1e-5 for one patient; privacy audit: PASS"
    bare = b.changed(b.FACTS, privacy={**b.PRIVACY, "eps": ""})
    assert show.privacy_text(bare) == show.NO_PRIVACY and "single records" in show.not_protected(bare)[0]
    assert show.privacy_text(b.changed(b.FACTS, privacy=None)) == show.UNTRAINED
