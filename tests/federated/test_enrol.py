"""Enrolment: what is agreed on, who gets in, and each way in which a request or kit is not what it seems."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from enrol_support import LORA, ROUNDS, TRAINING, Hospital, approved, coordinator, draft, hospital

from appliance.core.db import reading
from appliance.core.errors import ApplianceError, ConfigWrong, NotAllowed, NotFound, TrustRefused
from appliance.core.home import Home, open_home
from appliance.core.reading import read_bytes
from appliance.security import audit, canonical
from federated import approve, authority, description, enrol, papers, rules, setup, standing, words
from federated.flower.gateway import Doorman
from federated.place import place_of


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    return coordinator(tmp_path, monkeypatch)


@pytest.fixture
def site(tmp_path: Path) -> Hospital:
    return hospital(tmp_path, "st-anna")


def refused(problem: pytest.ExceptionInfo[ApplianceError]) -> str:
    """The message of an error that has two clear lines."""
    assert problem.value.message and problem.value.hint
    return problem.value.message


def resigned(content: bytes, **changed: Any) -> bytes:
    """A paper with fields changed and its old signature."""
    return canonical.encode({**canonical.decode(content.strip()), **changed}) + b"\n"


def entries(home: Home) -> list[str]:
    """What the audit log tells."""
    with reading(home) as link:
        return [entry["what"] for entry in audit.tail(link, 50)]


def test_request_approve_join_and_who_holds_which_key(hub: Hospital, site: Hospital) -> None:
    request = site.request()
    made = approved(hub, request)
    assert (made.site, made.seat, made.version) == ("st-anna", 1, 2)
    site.join(made.kit)
    agreement, signature = read_bytes(site.place.agreement), read_bytes(site.place.signature)
    key = standing.own_keys(hub.home).key
    assert description.opened(agreement, signature, key).site("st-anna") is not None
    assert (standing.side(hub.place), standing.side(site.place)) == ("coordinator", "site")
    assert rules.kept(site.place).epsilon == TRAINING["epsilon"]
    # No private key is in what travelled, nor anywhere at the coordinator.
    secrets = [site.place.pki / "site.key", site.place.pki / "node", site.place.path / "x25519.key"]
    bodies = [b"".join(path.read_bytes().splitlines()[1:-1]) or path.read_bytes() for path in secrets]
    abroad = [request, made.kit, *(file.read_bytes() for file in hub.home.path.rglob("*") if file.is_file())]
    assert not any(
        body in content.replace(b"\\n", b"").replace(b"\n", b"") for body in bodies for content in abroad
    )
    assert [stat.S_IMODE(path.stat().st_mode) for path in secrets] == [0o600] * 3
    assert enrol.round_key(site.place).public_key().public_bytes_raw().hex() == json.loads(request)["x25519"]
    assert {"federate.init", "federate.enrol"} <= set(entries(hub.home))
    assert {"federate.request", "federate.join"} <= set(entries(site.home))


def test_words_that_do_not_match_and_requests_that_were_altered(hub: Hospital, site: Hospital) -> None:
    request = site.request()
    with pytest.raises(TrustRefused) as problem:
        approved(hub, request, words="zebra " * 8)
    assert "words" in refused(problem)
    for changed in ({"site": "other"}, {"units": 999}, {"x25519": "1" * 64}, {"signature": "0" * 128}):
        with pytest.raises(TrustRefused) as problem:
            papers.read_request(resigned(request, **changed))
        assert "altered" in refused(problem)
    for rubbish in (b"", b"{}", b"[]", b"\xff" * 10, b'{"signature":"zz"}', b"x" * (papers.LONGEST + 1)):
        with pytest.raises(TrustRefused):
            papers.read_request(rubbish)
        with pytest.raises(TrustRefused):
            papers.read_kit(rubbish)
    assert standing.agreed(hub.place).sites == []
    # Signed anew by another key it is another request: its words are others.
    other = papers.write_request(papers.read_request(request), standing.own_keys(hub.home).sign)
    with pytest.raises(TrustRefused):
        papers.read_request(other)


def test_an_unknown_name_and_a_home_that_is_something_else(hub: Hospital, site: Hospital) -> None:
    with pytest.raises(NotFound) as missing:
        approve.drop(hub.home, "south", "st-anna", state="dropped", who="ana")
    assert "no federation called south" in refused(missing)
    elsewhere = enrol.request(
        site.home, "south", site="st-anna", dataset="visits", units=None, again=False, who="ana"
    )
    with pytest.raises(NotFound):
        approved(hub, elsewhere)
    with pytest.raises(ConfigWrong) as problem:
        hub.request()
    assert "coordinates" in refused(problem)
    with pytest.raises(NotFound):
        site.request(dataset="nothing")
    with pytest.raises(NotFound) as unknown:
        approve.drop(hub.home, "north", "st-anna", state="dropped", who="ana")
    assert "No site of north" in refused(unknown)


def test_a_name_or_key_that_is_taken(hub: Hospital, site: Hospital, tmp_path: Path) -> None:
    first = approved(hub, site.request())
    twin = hospital(tmp_path / "b", "ST-Anna")
    with pytest.raises(ConfigWrong) as problem:
        approved(hub, twin.request())
    assert "called st-anna already" in refused(problem)
    with pytest.raises(ConfigWrong) as problem:
        approved(hub, site.request(again=True, site="another"))
    assert "key of st-anna" in refused(problem)
    assert len(standing.agreed(hub.place).sites) == 1
    assert standing.agreed(hub.place).version == first.version


def test_a_lost_kit_is_given_again_and_is_the_same(hub: Hospital, site: Hospital) -> None:
    request = site.request()
    first, second = approved(hub, request), approved(hub, request)
    assert first == second and len(standing.agreed(hub.place).sites) == 1
    assert site.request() == request, "asked again, a site has one request"


def test_a_kit_used_twice_or_stolen_or_altered(hub: Hospital, site: Hospital, tmp_path: Path) -> None:
    kit = approved(hub, site.request()).kit
    thief = hospital(tmp_path / "thief", "thief")
    with pytest.raises(TrustRefused) as problem:
        thief.join(kit)
    assert "private keys are not here" in refused(problem)
    thief.request(site="st-anna")
    with pytest.raises(TrustRefused) as problem:
        thief.join(kit)
    assert "made for other keys" in refused(problem)
    for changed in ({"seat": 2}, {"agreement_signature": "0" * 128}, {"request": "0" * 64}):
        with pytest.raises(TrustRefused) as problem:
            site.join(resigned(kit, **changed))
        assert "altered" in refused(problem)
    (site.place.path / "x25519.key").rename(tmp_path / "lost")
    with pytest.raises(ConfigWrong):
        site.join(kit)
    (tmp_path / "lost").rename(site.place.path / "x25519.key")
    site.join(kit)
    with pytest.raises(ConfigWrong) as again:
        site.join(kit)
    assert "joined north already" in refused(again)
    with pytest.raises(ConfigWrong):
        site.request()


def test_the_coordinators_words_are_compared_too(hub: Hospital, site: Hospital) -> None:
    opened = papers.read_kit(approved(hub, site.request()).kit)
    with pytest.raises(TrustRefused) as problem:
        enrol.check_coordinator(site.home, opened, "")
    assert "Nobody here has compared" in refused(problem)
    with pytest.raises(TrustRefused) as problem:
        enrol.check_coordinator(site.home, opened, site.words)
    assert "not the words of the coordinator" in refused(problem)
    enrol.check_coordinator(site.home, opened, hub.words.upper())


def test_a_revoked_site_is_refused_from_the_next_message_on(hub: Hospital, site: Hospital) -> None:
    request = site.request()
    kit = approved(hub, request).kit
    der = papers.read_kit(kit).certificate.public_bytes(Encoding.DER)
    doorman = Doorman(folder=hub.place.link)
    assert doorman.reason("/clock", "GET", der, None) is None
    approve.drop(hub.home, "north", "st-anna", state="revoked", who="ana")
    assert doorman.reason("/clock", "GET", der, None) == "revoked"
    assert doorman.reason("/v1/fleet/pull-messages", "POST", der, None) == "revoked"
    after = standing.agreed(hub.place)
    description.opened(
        read_bytes(hub.place.agreement), read_bytes(hub.place.signature), after.coordinator_key
    )
    site_found = after.site("st-anna")
    assert site_found is not None and site_found.state == "revoked" and after.active() == []
    with pytest.raises(ConfigWrong) as problem:
        approve.drop(hub.home, "north", "st-anna", state="dropped", who="ana")
    assert "revoked already" in refused(problem)
    with pytest.raises(ConfigWrong) as problem:
        approved(hub, request)
    assert "is revoked" in refused(problem)
    # What joined with the kit goes on to the version that drops another, and only so.
    description.successor(papers.read_kit(kit).federation, after, after.created)


def test_a_version_is_whole_after_a_crash_between_its_files(
    hub: Hospital, site: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = site.request()

    write = standing.write_bytes

    def dies(path: Path, content: bytes) -> None:
        if path.name == "agreement.toml":
            raise OSError("killed")
        write(path, content)

    monkeypatch.setattr(standing, "write_bytes", dies)
    with pytest.raises(OSError, match="killed"):
        approved(hub, request)
    monkeypatch.undo()
    federation = standing.agreed(hub.place)
    description.opened(
        read_bytes(hub.place.agreement), read_bytes(hub.place.signature), federation.coordinator_key
    )
    assert approved(hub, request).seat == 1 and len(standing.agreed(hub.place).sites) == 1


def test_leaving_destroys_the_keys_and_a_new_name_comes_back(hub: Hospital, site: Hospital) -> None:
    kit = approved(hub, site.request()).kit
    site.join(kit)
    enrol.leave(site.home, "north", who="ana")
    assert not any((site.place.pki / name).exists() for name in ("site.key", "node"))
    assert standing.side(site.place) == "left"
    with pytest.raises(ConfigWrong) as problem:
        rules.pause(site.home, "north", paused=True, who="ana")
    assert "has left north" in refused(problem)
    approve.drop(hub.home, "north", "st-anna", state="left", who="ana")
    request = site.request(site="st-anna-2")
    with pytest.raises(ConfigWrong, match="key of st-anna"):
        approved(hub, request)  # its own Ed25519 key is the old one: `trust rotate` first


def test_pause_and_veto_are_the_sites_alone(hub: Hospital, site: Hospital) -> None:
    site.join(approved(hub, site.request()).kit)
    assert rules.pause(site.home, "north", paused=True, who="ana").paused
    assert rules.kept(site.place).paused
    assert not rules.pause(site.home, "north", paused=False, who="ana").paused
    assert rules.veto(site.home, "north", round_=2, undo=False, who="ana").vetoed == [2]
    assert rules.veto(site.home, "north", round_=2, undo=True, who="ana").vetoed == []
    with pytest.raises(ConfigWrong) as problem:
        rules.veto(site.home, "north", round_=3, undo=False, who="ana")
    assert "no round 3" in refused(problem)
    federation = standing.agreed(site.place)
    policy = rules.veto(site.home, "north", round_=None, undo=False, who="ana")
    from federated.policy import objections

    found = objections(policy, federation, number=1, cohort=3, done=0, unit="patient", now=federation.created)
    assert found == ["vetoed"]
    assert entries(site.home)[-5:] == ["federate.pause", "federate.resume"] + 3 * ["federate.veto"]
    with pytest.raises(ConfigWrong) as problem:
        rules.pause(hub.home, "north", paused=True, who="ana")
    assert "coordinates" in refused(problem)


def test_the_authoritys_key_can_be_kept_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Hospital
) -> None:
    from appliance.security.passphrase import Cost

    monkeypatch.setattr(authority, "calibrated", Cost)
    monkeypatch.setattr(setup, "measured", lambda home, federation: federation)
    hub, stick = hospital(tmp_path, "hub"), tmp_path / "stick.key"
    setup.init(hub.home, draft(), who="ana", keep_at=stick, passphrase="four words are enough 7")
    assert not hub.place.authority_key.exists() and stat.S_IMODE(stick.stat().st_mode) == 0o600
    request = site.request()
    with pytest.raises(NotFound) as missing:
        approved(hub, request)
    assert "kept elsewhere" in refused(missing)
    with pytest.raises(NotAllowed) as problem:
        approved(hub, request, file=stick, asked=lambda: "five words are too many 8")
    assert "passphrase" in refused(problem)
    stick.write_bytes(resigned(stick.read_bytes(), nonce="0" * 24))
    with pytest.raises(NotAllowed):
        approved(hub, request, file=stick, asked=lambda: "four words are enough 7")


def test_init_says_what_cannot_be_agreed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = coordinator(tmp_path, monkeypatch)
    with pytest.raises(ConfigWrong) as problem:
        setup.init(hub.home, draft(), who="ana")
    assert "called north here already" in refused(problem)
    for changed in (
        {"rounds": ROUNDS | {"quorum": 2}},
        {"rounds": ROUNDS | {"secure": True, "rule": "median"}},
        {"rounds": ROUNDS | {"secure": True, "min_cohort": 2}},
        {"lora": LORA | {"rank": 0}},
        {"training": TRAINING | {"delta": 0.5}},
        {"gateway": "nowhere"},
        {"gateway": "host:99999"},
        {"name": "no/name"},
        {"base": "missing"},
    ):
        with pytest.raises((ConfigWrong, NotFound)) as wrong:
            setup.init(hub.home, draft(**({"name": "south"} | changed)), who="ana")
        refused(wrong)
    assert not place_of(hub.home, "south").path.exists()
    bare = open_home(tmp_path / "bare")
    with pytest.raises(ConfigWrong) as problem:
        setup.init(bare, draft(), who="ana")
    assert "no keys" in refused(problem)


def test_what_init_works_out_is_what_a_site_finds(tmp_path: Path) -> None:
    """With the real base: the layout and the drawn arrays are those that `starting.fresh` makes."""
    from federated.starting import fresh

    hub = hospital(tmp_path, "hub")
    made = setup.init(hub.home, draft(), who="ana")
    assert fresh(hub.home, made).layout.sha256() == made.model.layout
    assert made.model.frozen != "0" * 64


def test_every_code_has_words() -> None:
    from federated import admit, policy

    for code in (*policy.WORDS, *admit.WORDS, "late", "node-key", "flower-206", "verb"):
        cause, step = words.why(code)
        assert cause and step and "not known" not in cause
    assert "not known" in words.why("<b>text of a stranger</b>")[0]
    assert "<" not in words.why("<b>text of a stranger</b>")[0]


def test_a_copied_folder_is_another_place(hub: Hospital, tmp_path: Path) -> None:
    """The CA's key of one federation approves nothing in another."""
    shutil.copy(hub.place.authority_key, tmp_path / "old.key")
    setup.init(hub.home, draft(name="south"), who="ana")
    south = place_of(hub.home, "south")
    shutil.copy(tmp_path / "old.key", south.authority_key)
    with pytest.raises(ConfigWrong, match="another authority"):
        authority.key_of(south, None, lambda: "")
