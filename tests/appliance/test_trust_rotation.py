"""New keys for a site: agreed by two, whole after a crash, and the old ones proven to have been its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bundle_support as b
import people_support as site
import pytest
from test_guards_below import agree

from appliance.core.errors import BundleRefused, ConfigWrong, NeedsApproval, NotAllowed
from appliance.core.home import Home
from appliance.security import audit, canonical
from appliance.security.trust import rotation, store
from appliance.security.trust.identity import identity_of, public
from tui import session_bundle
from tui.session import Session
from tui.site_key import older_keys, site_key

WHY = "yearly"


@pytest.fixture
def keyed(home: Home) -> Home:
    home.identity.write_bytes(b.OTHER.secret())
    return home


def test_a_site_has_new_keys_of_the_next_epoch(keyed: Home) -> None:
    made = rotation.rotate(keyed, who="joe", because=WHY)
    assert (made.name, made.role, made.key_epoch) == ("branch-north", "site", 2) and made.key != b.OTHER.key
    assert rotation.current(keyed).key == made.key
    third = rotation.rotate(keyed, who="joe", because=WHY)
    assert [card.key for card in rotation.older(keyed)] == [made.key, b.OTHER.key]
    assert [one.key for one in rotation.opening(keyed)] == [third.key, made.key, b.OTHER.key]
    assert sorted(path.name for path in keyed.identity.parent.iterdir()) == [
        *("identity-1.json", "identity-2.json", "identity.json", "rotations.json"),
    ]
    assert all(path.stat().st_mode & 0o077 == 0 for path in keyed.identity.parent.glob("identity*"))
    with pytest.raises(ConfigWrong):
        rotation.rotate(keyed, who="joe", because="")


def test_stolen_keys_are_deleted_and_still_known(keyed: Home) -> None:
    rotation.rotate(keyed, who="joe", because=WHY)
    third = rotation.rotate(keyed, who="joe", because="the stick is gone", stolen=True)
    assert [one.key for one in rotation.opening(keyed)] == [third.key]
    assert list(keyed.identity.parent.glob("identity-*.json")) == []
    assert len(rotation.older(keyed)) == 2, "what they signed before can still be checked"


def test_only_what_the_newest_key_signed_was_the_sites_own(keyed: Home) -> None:
    rotation.rotate(keyed, who="joe", because=WHY)
    path = keyed.identity.with_name("rotations.json")
    held = canonical.decode(path.read_bytes())
    stranger, mine = b.CENTRE, rotation.current(keyed)
    content = rotation.SIGNED_ROTATION + canonical.encode({"from": stranger.key, "to": mine.key})
    forged = {
        "from": canonical.decode(public(stranger).content),
        "to": canonical.decode(public(mine).content),
        "old": stranger.sign(content).hex(),
        "new": stranger.sign(content).hex(),
    }
    path.write_bytes(canonical.encode({"v": 1, "rotations": [forged]}))
    assert rotation.older(keyed) == []
    path.write_bytes(canonical.encode({"v": 1, "rotations": [{**held["rotations"][0], "old": "00" * 64}]}))
    assert rotation.older(keyed) == []
    path.write_bytes(canonical.encode(held))
    assert [card.key for card in rotation.older(keyed)] == [b.OTHER.key]


def test_a_crash_leaves_the_old_keys_or_the_new_ones(keyed: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "finish", lambda home: None)
    made = rotation.rotate(keyed, who="joe", because=WHY)  # the database knows, the files do not
    assert identity_of(keyed.identity.read_bytes()).key == b.OTHER.key
    monkeypatch.undo()
    assert rotation.current(keyed).key == made.key and rotation.older(keyed)[0].key == b.OTHER.key
    rotation.finish(keyed)
    # Keys that the database never heard of are no keys.
    (keyed.identity.parent / "identity.next.json").write_bytes(b.CENTRE.secret())
    assert rotation.current(keyed).key == made.key
    assert not (keyed.identity.parent / "identity.next.json").exists()

    def die(*parts: Any, **rest: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(audit, "record", die)
    with pytest.raises(KeyboardInterrupt):
        rotation.rotate(keyed, who="joe", because=WHY)
    assert not (keyed.identity.parent / "identity.next.json").exists()
    assert rotation.current(keyed).key == made.key


def test_two_people_agree_to_new_keys(keyed: Home) -> None:
    site.settle_in(keyed)
    for who, error in (("ana", NotAllowed), ("aude", NotAllowed), ("sam", NeedsApproval)):
        with pytest.raises(error):
            rotation.rotate(keyed, who=who, because=WHY)
    content = rotation.rotation_content(b.OTHER, WHY, stolen=False)
    agree(keyed, "trust.rotate", "branch-north", content)
    with pytest.raises(NeedsApproval):
        rotation.rotate(keyed, who="sam", because=WHY, stolen=True)
    made = rotation.rotate(keyed, who="sam", because=WHY)
    (line,) = site.column(keyed, "SELECT entry FROM audit WHERE entry LIKE '%\"identity.rotate\"%'")
    assert json.loads(str(line))["before"] == b.OTHER.key and made.key_epoch == 2
    with pytest.raises(NeedsApproval):
        rotation.rotate(keyed, who="sam", because=WHY)


def test_bundles_on_their_way_are_opened_and_partners_take_the_new_card(
    keyed: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: float(b.NOW))
    monkeypatch.setattr("appliance.security.trust.clock.last_entries", lambda *parts: 0)
    b.pinned(keyed)
    old = b.bundle(tmp_path / "old.clb", to=(b.OTHER,)).path
    other = b.bundle(tmp_path / "other.clb", to=(b.EDGE,)).path
    session = Session(keyed.path, "joe")
    session_bundle.rotate(session, WHY, stolen=False)
    assert session_bundle.verify(keyed.path, old, keys=None, cards=())["signer"] == "centre"
    assert session_bundle.look(keyed.path, old, keys=None)["signer"] is None
    with pytest.raises(BundleRefused) as problem:
        session_bundle.verify(keyed.path, other, keys=None, cards=())
    assert problem.value.reason == "other-recipient"
    session_bundle.rotate(session, "stolen", stolen=True)
    with pytest.raises(BundleRefused):
        session_bundle.verify(keyed.path, old, keys=None, cards=())
    # A partner who has the old card takes the new one by its words, and the old one ends.
    partner = Home(path=tmp_path / "partner")
    partner.bundles.mkdir(parents=True)
    b.pinned(partner, b.OTHER)
    b.pinned(partner, rotation.current(keyed))
    assert [(one.key_epoch, one.name) for one in store.trust(partner).signers.values()] == [
        (3, "branch-north")
    ]


def test_the_log_goes_on_under_the_new_key(keyed: Home) -> None:
    from tui import session_audit

    session = Session(keyed.path, "joe")
    session_audit.checkpoint(session, None)
    first = site_key(keyed)
    session_bundle.rotate(session, WHY, stolen=True)
    session_audit.checkpoint(session, None)
    found = session_audit.verify(session)
    assert found["ok"] and found["signed"] == 3, found["damages"]
    assert first is not None and [one.public for one in older_keys(keyed)] == [first.public]
    keyed.identity.with_name("rotations.json").unlink()
    assert not session_audit.verify(session)["ok"], "without the proof the old key is nobody's"
