"""The plan refuses what cannot work, before anything is charged."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.core.errors import ConfigWrong, PrivacyRefused
from appliance.core.home import Home
from appliance.core.job import Job
from appliance.privacy.accountant import Steps, epsilon
from appliance.privacy.ledger import Budget, Purse, open_budget
from appliance.train.job import _privacy
from appliance.train.plan import learning_rates, plan_private, statement
from appliance.train.settings import Settings, settings_from


def budget(*history: Steps) -> Budget:
    return Budget(dataset="inbox", unit="patient", epsilon_limit=8.0, delta=1e-4, history=history)


def test_the_noise_keeps_the_whole_history_within_epsilon() -> None:
    before = Steps(noise_multiplier=3.0, sample_rate=0.2, steps=20)
    plan = plan_private(
        Settings(epsilon=4.0), units=900, candidates=900, records=2000, unit="patient", budget=budget(before)
    )
    run = Steps(noise_multiplier=plan.noise_multiplier or 0, sample_rate=0.35, steps=plan.steps)
    assert 3.9 < epsilon([before, run], 1e-4) <= 4.0
    assert plan.expected_batch == pytest.approx(0.35 * 900)


def test_sampling_records_pays_for_all_records_of_a_patient() -> None:
    settings = Settings(epsilon=4.0, sampling="record", records_per_unit=3, sample_rate=0.1)
    plan = plan_private(settings, units=900, candidates=2100, records=2400, unit="patient", budget=budget())
    assert plan.draws == 3 and plan.expected_batch == pytest.approx(210)
    assert 3.9 < epsilon([plan.charged(plan.steps)], 1e-4) <= 4.0
    assert epsilon([replace(plan.charged(plan.steps), draws=1)], 1e-4) < 2
    assert "at most 3 of a patient" in statement(plan, settings)["sampling"]


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(PrivacyRefused):
        plan_private(Settings(), units=40, candidates=40, records=400, unit="patient", budget=budget())


def test_a_spent_budget_and_a_rest_too_small_to_learn_from_are_refused() -> None:
    spent = Steps(noise_multiplier=1.65, sample_rate=0.35, steps=55)
    with pytest.raises(PrivacyRefused):
        plan_private(
            Settings(epsilon=2.0), units=900, candidates=900, records=9, unit="patient", budget=budget(spent)
        )
    nearly = epsilon([spent], 1e-4) + 0.01
    with pytest.raises(PrivacyRefused, match="too little is left"):
        plan_private(
            Settings(epsilon=nearly),
            units=900,
            candidates=900,
            records=9,
            unit="patient",
            budget=budget(spent),
        )


def test_more_than_the_dataset_may_spend_is_refused_not_capped() -> None:
    with pytest.raises(PrivacyRefused, match="more than the limit"):
        plan_private(
            Settings(epsilon=20.0), units=900, candidates=900, records=9, unit="patient", budget=budget()
        )


def test_settings_say_all_that_is_wrong_at_once() -> None:
    with pytest.raises(ConfigWrong, match="rank, sample_rate"):
        Settings(rank=0, sample_rate=2.0)
    with pytest.raises(ConfigWrong, match="colour"):
        settings_from({"colour": "blue"})


def test_the_rate_warms_up_then_falls_to_a_tenth() -> None:
    rates = learning_rates(50, 0.1)
    assert len(rates) == 50 and max(rates) == pytest.approx(0.1) and rates[0] < 0.03
    assert rates[-1] == pytest.approx(0.01)


def test_steps_that_the_ledger_does_not_know_get_no_certificate(home: Home) -> None:
    open_budget(home, "inbox", unit="patient", units=900, delta=None, who="test")
    plan = plan_private(Settings(), units=900, candidates=900, records=900, unit="patient", budget=budget())
    job = Job(id="0001", kind="train", folder=home.jobs, home=home, who="test")
    dataset: Any = SimpleNamespace(name="inbox", labels=())
    purse = Purse(home, "inbox", job="0001", run=plan.charged(plan.steps), limit=8.0)
    purse.charge(2)
    told = _privacy(job, plan, Settings(), dataset, 2)
    assert told is not None and told["steps_charged"] == 2
    with pytest.raises(PrivacyRefused, match="in the ledger"):
        _privacy(job, plan, Settings(), dataset, 3)
