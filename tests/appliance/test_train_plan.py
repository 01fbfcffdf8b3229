"""The plan refuses what cannot work, before anything is charged."""

from __future__ import annotations

import pytest

from appliance.core.errors import ConfigWrong, PrivacyRefused
from appliance.privacy.accountant import Steps, epsilon
from appliance.privacy.ledger import Budget
from appliance.train.plan import learning_rates, plan_private
from appliance.train.settings import Settings, settings_from


def budget(*history: Steps) -> Budget:
    return Budget(dataset="inbox", unit="patient", epsilon_limit=8.0, delta=1e-4, history=history)


def test_the_noise_keeps_the_whole_history_within_epsilon() -> None:
    before = Steps(noise_multiplier=3.0, sample_rate=0.2, steps=20)
    plan = plan_private(Settings(epsilon=4.0), units=900, records=2000, unit="patient", budget=budget(before))
    run = Steps(noise_multiplier=plan.noise_multiplier or 0, sample_rate=0.35, steps=plan.steps)
    assert 3.9 < epsilon([before, run], 1e-4) <= 4.0
    assert plan.expected_units == pytest.approx(0.35 * 900)


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(PrivacyRefused):
        plan_private(Settings(), units=40, records=400, unit="patient", budget=budget())


def test_a_spent_budget_and_a_rest_too_small_to_learn_from_are_refused() -> None:
    spent = Steps(noise_multiplier=1.65, sample_rate=0.35, steps=55)
    with pytest.raises(PrivacyRefused):
        plan_private(Settings(epsilon=2.0), units=900, records=9, unit="patient", budget=budget(spent))
    nearly = epsilon([spent], 1e-4) + 0.01
    with pytest.raises(PrivacyRefused, match="all noise"):
        plan_private(Settings(epsilon=nearly), units=900, records=9, unit="patient", budget=budget(spent))


def test_settings_say_all_that_is_wrong_at_once() -> None:
    with pytest.raises(ConfigWrong, match="rank, sample_rate"):
        Settings(rank=0, sample_rate=2.0)
    with pytest.raises(ConfigWrong, match="colour"):
        settings_from({"colour": "blue"})


def test_the_rate_warms_up_then_falls_to_a_tenth() -> None:
    rates = learning_rates(50, 0.1)
    assert len(rates) == 50 and max(rates) == pytest.approx(0.1) and rates[0] < 0.03
    assert rates[-1] == pytest.approx(0.01)
