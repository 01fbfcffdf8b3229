"""Probes of differential privacy: what a claim says is held against ledger, run record and code."""

from __future__ import annotations

import json
from typing import Any

import evidence_support as site
import numpy as np
import pytest
from evidence_support import ask, outcome

from appliance.core.files import write_json
from appliance.core.home import Home
from appliance.ops.evidence import probes_privacy, rows, shape
from appliance.privacy import noise, uncharged

YES, NO, NONE = shape.SUPPORTS, shape.LACKS, shape.ABSENT
OF_MODELS = [name for name in probes_privacy.PROBES if name != "noise"]


@pytest.fixture
def private(home: Home) -> Home:
    site.add_data(home)
    site.add_private(home)
    return home


def test_nothing_is_said_of_models_that_are_not_there(home: Home) -> None:
    assert {name: outcome(home, name) for name in OF_MODELS} == dict.fromkeys(OF_MODELS, NONE)


def test_a_claim_that_everything_bears_out(private: Home) -> None:
    found = {name: ask(private, name) for name in OF_MODELS if name != "privacy audit"}
    assert {name: one.outcome for name, one in found.items()} == dict.fromkeys(found, YES)
    assert "one patient" in found["unit"].text and "0.2" in found["clipping"].text
    assert "add or remove one patient" in found["definition"].text
    assert shape.version() in found["accountant"].text
    assert found["composition"].figures["runs"] == {"inbox": 1}


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("epsilon", {"epsilon": 0.1}),
        ("epsilon", {"epsilon": float("inf")}),
        ("unit", {"unit": "note"}),
        ("definition", {"adjacency": "replace one record"}),
        ("accountant", {"accountant": "moments of somebody else"}),
        ("mechanism", {"mechanism": "Laplace noise from the clock"}),
        ("clipping", {"max_grad_norm": 0.0}),
        ("clipping", {"max_grad_norm": None}),
    ],
)
def test_a_claim_that_does_not_hold(private: Home, name: str, claim: dict[str, Any]) -> None:
    site.restate(private, "lora-1", **claim)
    found = ask(private, name)
    assert found.outcome == NO and "lora-1" in found.text


def test_more_charged_than_stated_or_allowed(private: Home) -> None:
    site.charge_more(private, 0.4)
    found = ask(private, "epsilon")
    assert found.outcome == NO and "more was spent" in found.text.lower()


def test_a_run_that_is_not_in_the_ledger(private: Home) -> None:
    from appliance.core.db import transaction

    with transaction(private) as link:
        link.execute("DELETE FROM ledger")
    assert outcome(private, "epsilon") == NO


def test_batches_that_were_not_drawn_as_claimed(private: Home) -> None:
    fixed = [{"units": 350, "noise_ratio": 1.0}] * site.STEPS
    site.restate(private, "lora-1", training={"history": [{**one, "units": 100} for one in fixed]})
    found = ask(private, "sampling")
    assert found.outcome == NO and "batch sizes" in found.text
    site.restate(private, "lora-1", training={"history": []})
    assert outcome(private, "sampling") == NO  # a run that wrote nothing down


def test_noise_that_repeats_or_is_too_small(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome(home, "noise") == YES
    honest = noise.discrete_gaussian
    monkeypatch.setattr(
        noise, "discrete_gaussian", lambda count, sigma, stream: honest(count, sigma * 0.9, stream)
    )
    assert outcome(home, "noise") == NO
    monkeypatch.setattr(
        noise,
        "discrete_gaussian",
        lambda count, sigma, stream: np.rint(np.random.default_rng(1).normal(0, sigma, count)).astype(int),
    )
    assert outcome(home, "noise") == NO
    monkeypatch.setattr(
        noise, "discrete_gaussian", lambda count, sigma, stream: honest(count, sigma, stream) * 1.0
    )
    assert outcome(home, "noise") == NO  # floating point


def test_what_was_learnt_beside_the_count(private: Home) -> None:
    site.restate(private, "lora-1")
    uncharged.note(private, "inbox", job="0007", kind=uncharged.OPEN, who="mira")
    found = ask(private, "composition")
    assert found.outcome == NO and "0007" in found.text


def test_a_model_without_privacy(private: Home) -> None:
    site.add_file(private, "open-1", kind="adapter", dataset="inbox@1", parent="base", facts={})
    found = ask(private, "open runs")
    assert found.outcome == NO and "open-1" in found.text and "lora-1" not in found.text


def test_made_up_records_may_be_learnt_openly(home: Home) -> None:
    site.add_data(home, synthetic=True)
    site.add_file(home, "base", kind="base")
    site.add_file(home, "open-1", kind="adapter", dataset="inbox@1", parent="base", facts={"synthetic": True})
    uncharged.note(home, "inbox", job="0007", kind=uncharged.OPEN, who="mira")
    assert outcome(home, "open runs") == YES
    assert outcome(home, "composition") == NONE


def test_privacy_audits(private: Home) -> None:
    assert "not audited: lora-1" in ask(private, "privacy audit").text
    for job, verdict, told in (("1", "PASS", YES), ("2", "FAIL", NO), ("3", "INCONCLUSIVE", NO)):
        report = {"job": job, "created": job, "model": "lora-1", "verdict": verdict}
        write_json(private.reports / f"{job}-privacy.json", report | {"verdicts": {"lora-1": verdict}})
        assert outcome(private, "privacy audit") == told, verdict


def test_every_question_has_a_line(private: Home) -> None:
    """SP 800-226 asks; none of it stays blank, and nothing of a record or a secret is in the answers."""
    for row in rows.chosen("nist"):
        assert row.says and all(ask(private, name).text for name in row.probes if name != "roles")
    told = json.dumps([ask(private, name).text for name in OF_MODELS])
    assert site.CANARY not in told
