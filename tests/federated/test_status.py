"""What a coordinator is shown of its rounds: from the job's events and the committed records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from enrol_support import Hospital, approved, coordinator, hospital

from appliance.core.db import transaction
from appliance.core.errors import DataRejected
from appliance.core.events import append_event
from federated import checkpoint, standing, status
from federated.checkpoint import Record
from federated.layout import layout_of
from tui.cli.federate_lines import event_line

LAYOUT = layout_of({"m.lora_B.weight": (2, 2)})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    """A coordinator of two sites with one committed round and a job that told of it."""
    made = coordinator(tmp_path, monkeypatch)
    for name in ("anna", "bert"):
        approved(made, hospital(tmp_path, name).request())
    record = Record(
        round=1, federation="f", parent="p", adapter="a", change="c", state="s", rule="mean",
        weights={"anna": 30, "bert": 10}, updates={}, refused={"carl": "late"},
        losses={"anna": 2_000_000, "bert": 1_000_000, "carl": -1}, lost=0,
    )  # fmt: skip
    state = checkpoint.start(LAYOUT, np.zeros(LAYOUT.values, np.float32))
    checkpoint.folder_of(made.place.path, 1).mkdir(parents=True)
    checkpoint.commit(made.place.path, LAYOUT, state, b"", record, standing.own_keys(made.home).sign)
    with transaction(made.home) as link:
        link.execute(
            "INSERT INTO jobs (id, kind, title, who, created) VALUES (?, ?, ?, ?, ?)",
            ("0001", "federate", "federate north", "ana", ""),
        )
    events = made.home.jobs / "0001" / "events.jsonl"
    events.parent.mkdir()
    for told in (
        {"what": "sites", "there": ["anna", "bert"], "come": ["anna", "bert"], "gone": []},
        {"what": "round", "round": 1, "state": "open", "cohort": ["anna", "bert", "carl"]},
        {"what": "update", "site": "anna", "round": 1, "norm": 0.5, "bytes": 99},
        {"what": "refused", "site": "bert", "round": 1, "reason": "norm"},
        {"what": "refused", "reason": "certificate", "place": "10.0.0.9"},
        {"what": "refused", "reason": "certificate", "place": "10.0.0.9"},
        {"what": "round", "round": 1, "state": "done", "weights": record.weights, "refused": record.refused},
    ):
        append_event(events, "federation", **told)
    return made


def test_rounds_sites_and_what_was_refused_and_why(hub: Hospital) -> None:
    found = status.status(hub.home, "north")
    (round_,) = found["rounds"]
    assert round_["loss"] == pytest.approx(1.75)  # by records, of those who told it
    assert round_["refused"]["carl"]["why"] == "it did not answer by the deadline"
    assert round_["records"] == 40 and round_["seconds"] is not None
    anna, bert = found["sites"]
    assert (anna["records"], anna["last"], anna["online"]) == (30, "sent round 1, 99 bytes", False)
    assert bert["last"] == "it is larger than the clip bound"
    at_gate, at_gateway = found["refused"]
    assert (at_gate["site"], at_gate["code"]) == ("bert", "norm") and at_gate["next"]
    assert (at_gateway["from"], at_gateway["times"]) == ("10.0.0.9", 2)
    assert "epsilon" not in {key for site in found["sites"] for key in site}  # known at the site alone


def test_an_altered_round_is_not_shown_as_one(hub: Hospital) -> None:
    path = checkpoint.folder_of(hub.place.path, 1) / "record.json"
    path.write_text(path.read_text().replace('\\"anna\\":30', '\\"anna\\":99'))
    with pytest.raises(DataRejected):
        status.status(hub.home, "north")


def test_events_in_words() -> None:
    def said(**event: object) -> str | None:
        return event_line({"event": "federation", **event})

    assert said(what="round", round=2, answer="budget", bytes=0) == (
        "round 2: not answered: the site's privacy budget does not pay the round"
    )
    assert said(what="round", round=2, state="done", weights={"a": 1}, refused={"b": "late"}) == (
        "round 2: done with 1 sites; without b: it did not answer by the deadline"
    )
    assert said(what="refused", site="b", round=2, reason="norm") == (
        "refused b: it is larger than the clip bound; look at the code that the site runs"
    )
    assert said(what="sites", there=["a"], come=["a"], gone=[]) == "here: a"
    assert said(what="process", name="gateway", state="started") is None
    assert said(what="process", name="gateway", state="ended with 1; started again") is not None
