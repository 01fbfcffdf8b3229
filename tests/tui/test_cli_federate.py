"""cloister federate, as it is typed: to a seat, with two people where people have roles, in a sealed home."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "appliance"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "federated"))
import people_support as people
from enrol_support import Hospital, coordinator, hospital
from vault_support import sealed_home, unlocked

from appliance.core.errors import NeedsApproval, NotAllowed
from appliance.core.files import write_bytes, write_private
from appliance.core.reading import read_bytes
from appliance.core.vaulted import MAGIC
from appliance.security.passphrase import Cost
from appliance.security.people import approvals, persons
from federated import papers, standing
from federated.place import place_of
from tui import session_federate
from tui.cli import app
from tui.session import Session


def typed(who: Hospital, *words: str, code: int = 0) -> dict[str, Any]:
    """What a command prints with --json."""
    done = CliRunner().invoke(app, ["federate", *words, "--json", "--home", str(who.home.path)])
    assert done.exit_code == code, done.output
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    return coordinator(tmp_path, monkeypatch)


def test_from_a_request_to_a_seat(hub: Hospital, tmp_path: Path) -> None:
    site, request, kit = hospital(tmp_path, "st-anna"), tmp_path / "r", tmp_path / "k"
    asked = typed(site, "request", "north", "--dataset", "visits", "--to", str(request))
    assert typed(site, "status", "north")["side"] == "asked"
    wrong = typed(hub, "approve", str(request), "--words", "no such words", "--to", str(kit), code=12)
    assert wrong["error"]["code"] == "trust-refused" and wrong["error"]["hint"] and not kit.exists()
    made = typed(hub, "approve", str(request), "--words", asked["words"], "--to", str(kit))
    joined = typed(site, "join", str(kit), "--words", made["words"], "--min-cohort", "4", "--keep-loss")
    assert joined["joined"] and joined["policy"]["min_cohort"] == 4 and not joined["policy"]["tell_loss"]
    assert typed(site, "list")["federations"][0]["side"] == "site"
    refused = typed(site, "start", "north", code=2)
    assert "not reachable" in refused["error"]["message"]
    assert not typed(site, "check", "north", code=2)["good"]
    assert typed(site, "pause", "north")["paused"] and not typed(site, "resume", "north")["paused"]
    assert typed(site, "veto", "north", "--round", "1")["rounds"] == [1]
    assert typed(site, "veto", "north", "--model")["model"]
    assert typed(site, "veto", "north", code=2)["error"]["hint"]
    said = typed(site, "status", "north")
    assert said["epsilon"]["spent"] == 0 and said["policy"]["vetoed"] == [1] and said["seat"] == 1
    too_few = typed(hub, "start", "north", code=2)
    assert "too few sites" in too_few["error"]["message"]
    assert typed(hub, "drop", "north", "st-anna", "--revoked")["state"] == "revoked"
    assert typed(hub, "status", "north")["sites"][0]["state"] == "revoked"
    assert typed(site, "leave", "north")["left"]
    assert typed(site, "status", "south", code=3)["error"]["code"] == "not-found"


def test_the_end_at_the_coordinator_and_by_a_notice_at_a_site(hub: Hospital, tmp_path: Path) -> None:
    site, request, kit, note = hospital(tmp_path, "st-anna"), tmp_path / "r", tmp_path / "k", tmp_path / "n"
    asked = typed(site, "request", "north", "--dataset", "visits", "--to", str(request))
    typed(hub, "approve", str(request), "--words", asked["words"], "--to", str(kit))
    typed(site, "join", str(kit), "--words", hub.words)
    early = typed(hub, "end", "north", code=2)["error"]
    assert "0 of" in early["message"] and "--unfinished" in early["hint"]
    typed(site, "end", "north", "--unfinished", code=2)  # no site ends it for the others
    (tmp_path / "false").write_bytes(request.read_bytes())
    assert typed(site, "end", "north", "--notice", str(tmp_path / "false"), code=12)["error"]["hint"]
    done = typed(hub, "end", "north", "--unfinished", "--to", str(note))
    assert done["retired"] == ["authority.key", "link/pki/server.key"] and done["sites"] == ["st-anna"]
    assert typed(hub, "status", "north")["agreement"]["ended"]
    assert typed(hub, "list")["federations"][0]["ended"]
    for who in (hub, site):
        if who is site:
            heard = typed(site, "end", "north", "--notice", str(note))
            assert len(heard["retired"]) == 3
        refused = typed(who, "start", "north", code=2)["error"]["message"]
        assert "the coordinator has ended it" in refused
    assert typed(hub, "end", "north")["before"]
    plain = CliRunner().invoke(app, ["federate", "status", "north", "--home", str(site.home.path)])
    assert "ENDED" in plain.output
    helped = CliRunner().invoke(app, ["federate", "end", "--help"])
    assert helped.exit_code == 0 and "--notice" in helped.output and "--unfinished" in helped.output


def test_a_stopped_join_names_all_that_is_wrong_and_takes_no_seat(hub: Hospital, tmp_path: Path) -> None:
    small, request, kit = hospital(tmp_path, "small", records=40), tmp_path / "r", tmp_path / "k"
    asked = typed(small, "request", "north", "--dataset", "visits", "--to", str(request))
    typed(hub, "approve", str(request), "--words", asked["words"], "--to", str(kit))
    done = CliRunner().invoke(
        app, ["federate", "join", str(kit), "--words", hub.words, "--home", str(small.home.path)]
    )
    assert done.exit_code == 2 and "too few to train" in done.output and "later" in done.output
    assert standing.side(small.place) == "asked"


def test_a_site_is_taken_in_by_two_people_and_dropped_by_one(hub: Hospital, tmp_path: Path) -> None:
    request = hospital(tmp_path, "st-anna").request()
    (tmp_path / "r").write_bytes(request)
    staff = [people.new(name, role) for name, role in people.ROLE_OF.items()]
    persons.found(hub.home, "St. Anna", staff, cost=Cost(), now=persons.utc_now())
    words = {"words": papers.request_words(request), "to": tmp_path / "k", "authority": None}
    given: dict[str, Any] = {**words, "passphrase": lambda: ""}
    ana, sam = (Session(hub.home.path, signer=people.signer(name)) for name in ("ana", "sam"))
    with pytest.raises(NotAllowed, match="is for"):
        session_federate.approve(ana, tmp_path / "r", **given)
    with pytest.raises(NeedsApproval) as needs:
        session_federate.approve(sam, tmp_path / "r", **given)
    shown = approvals.show(hub.home, needs.value.request).request["content"]
    assert shown["words"] == words["words"] and shown["site"] == "st-anna"
    assert standing.agreed(hub.place).sites == []
    from federated import approve

    with pytest.raises(NeedsApproval):  # nor behind the door
        approve.approve(hub.home, request, words=str(words["words"]), who="sam", file=None, asked=lambda: "")
    approvals.vote(hub.home, needs.value.request, people.signer("olga"), yes=True)
    assert session_federate.approve(sam, tmp_path / "r", **given)["seat"] == 1
    with pytest.raises(NotAllowed, match="is for"):
        approve.drop(hub.home, "north", "st-anna", state="dropped", who="ana")
    assert session_federate.drop(sam, "north", "st-anna", state="dropped")["version"] == 3


def test_in_a_sealed_home_only_the_link_is_plain(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "sealed")
    place = place_of(home, "north")
    place.pki.mkdir(parents=True)
    with unlocked(home, master):
        write_bytes(place.agreement, b"agreed")
        write_private(place.authority_key, b"key")
        write_private(place.pki / "site.key", b"key")
        assert read_bytes(place.agreement) == b"agreed"
    for path in (place.agreement, place.authority_key):
        assert path.read_bytes().startswith(MAGIC)
    assert (place.pki / "site.key").read_bytes() == b"key"
