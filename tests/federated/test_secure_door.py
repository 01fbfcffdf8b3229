"""What people are told of secure rounds, and what they cannot have with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from enrol_support import ROUNDS, Hospital, approved, coordinator, hospital

from appliance.core.errors import ConfigWrong
from federated import enrol, standing, status
from tui import session_carry, session_federate
from tui.session import Session


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Hospital, Hospital]:
    """A coordinator of secure rounds, and a site that has joined."""
    hub = coordinator(tmp_path, monkeypatch, rounds=ROUNDS | {"secure": True})
    anna = hospital(tmp_path, "anna")
    anna.join(approved(hub, anna.request()).kit)
    return hub, anna


def test_status_says_which_of_the_two_is_in_force(pair: tuple[Hospital, Hospital]) -> None:
    for one in pair:
        said = status.status(one.home, "north")["agreement"]
        assert said["secure"] and said["mode"] == "secure aggregation (the coordinator sees the sum alone)"
    plain = standing.agreed(pair[0].place)
    for rule, words in (("mean", "plain mean"), ("median", "robust: median")):
        rounds = plain.rounds.model_copy(update={"secure": False, "rule": rule})
        made = plain.model_copy(update={"rounds": rounds})
        assert status.mode(made) == f"{words} (the coordinator sees each update)"


def test_no_secure_round_goes_by_stick(pair: tuple[Hospital, Hospital], tmp_path: Path) -> None:
    hub, anna = (Session(one.home.path) for one in pair)
    with pytest.raises(ConfigWrong, match="secure aggregation"):
        session_carry.export_round(hub, "north", site="anna", out=tmp_path / "x.clb")
    assert not (pair[0].place.stick / "sites").exists()
    with pytest.raises(ConfigWrong, match="secure aggregation"):
        session_federate.start(anna, "north", host="", port=None, model=None, carried=True)


def test_the_agreement_pins_the_key_that_the_site_made(pair: tuple[Hospital, Hospital]) -> None:
    hub, anna = pair
    held = enrol.round_key(anna.place).public_key().public_bytes_raw().hex()
    site = standing.agreed(hub.place).site("anna")
    assert site is not None and site.x25519 == held
