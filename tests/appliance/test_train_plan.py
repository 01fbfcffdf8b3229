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
from appliance.train.plan import Plan, learning_rates, noise_ratio, plan_open, plan_private, warnings
from appliance.train.result import privacy_of
from appliance.train.settings import Settings, settings_from
from appliance.train.statement import statement, trained_words


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


def private(settings: Settings, *, units: int = 900, history: tuple[Steps, ...] = ()) -> Plan:
    return plan_private(
        settings, units=units, candidates=units, records=2000, unit="patient", budget=budget(*history)
    )


def test_steps_with_less_than_one_patient_are_refused() -> None:
    with pytest.raises(PrivacyRefused, match="fewer than one"):
        private(Settings(sample_rate=0.001))
    assert private(Settings(sample_rate=0.002)).expected_batch == pytest.approx(1.8)


def test_a_delta_that_may_publish_one_patient_is_refused() -> None:
    with pytest.raises(PrivacyRefused, match="not below 1/900"):
        plan_private(
            Settings(),
            units=900,
            candidates=900,
            records=9,
            unit="patient",
            budget=replace(budget(), delta=1 / 900),
        )


def test_noise_longer_than_any_gradient_is_warned_of_with_what_would_be_enough() -> None:
    plan = private(Settings(epsilon=2.0))
    few = int((plan.expected_batch or 0) ** 2 / (plan.noise_multiplier or 1) ** 2)  # ratio just below 1
    assert noise_ratio(plan, few) == pytest.approx(1, abs=0.01)
    assert warnings(plan, Settings(), trained=few, budget=budget()) == []
    assert "or epsilon" not in warnings(plan, Settings(), trained=16 * few, budget=budget())[0], "beyond 8"
    wide = replace(budget(), epsilon_limit=100.0)
    told = warnings(plan, Settings(), trained=16 * few, budget=wide)
    assert len(told) == 1, "it is as small as can be"
    assert len(warnings(plan, Settings(method="full"), trained=16 * few, budget=wide)) == 2
    assert "4.0 times" in told[0] and "3,600 patients instead of 900" in told[0]
    assert "or epsilon" in told[0]
    asked = float(told[0].partition("or epsilon ")[2].rstrip("."))
    assert 2 < asked < 30
    enough = plan_private(
        Settings(epsilon=asked),
        units=900,
        candidates=900,
        records=9,
        unit="patient",
        budget=wide,
    )
    assert noise_ratio(enough, 16 * few) == pytest.approx(1, abs=0.05)


def test_without_privacy_fewer_records_than_a_batch_are_told() -> None:
    plan = plan_open(Settings(private=False), units=9, records=20)
    assert plan.steps == 3 and noise_ratio(plan, 100) is None
    assert "only 20 records" in warnings(plan, Settings(private=False), trained=100)[0]
    with pytest.raises(ConfigWrong):
        plan_open(Settings(private=False), units=0, records=0)


def test_the_bases_own_weights_are_neither_pulled_to_zero_nor_moved_as_far_as_lora() -> None:
    lora, full = private(Settings()), private(Settings(method="full"))
    assert lora.weight_decay == 0.3 and full.weight_decay == 0
    assert full.learning_rate < lora.learning_rate / 10
    assert private(Settings(method="full", weight_decay=0.1, learning_rate=0.01)).weight_decay == 0.1


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
    with pytest.raises(ConfigWrong, match="rank, sample_rate") as caught:
        Settings(rank=0, sample_rate=2.0)
    assert "--rank 1 to 4096; --sample-rate above 0 and at most 1" in caught.value.hint
    with pytest.raises(ConfigWrong, match="colour"):
        settings_from({"colour": "blue"})


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_rate_warms_up_then_falls_to_a_tenth(schedule: str) -> None:
    rates = learning_rates(50, 0.1, schedule, 5)
    assert len(rates) == 50 and max(rates) == pytest.approx(0.1) and rates[0] == pytest.approx(0.02)
    assert rates[4] == max(rates) and list(rates[4:]) == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.01)


def test_the_cosine_falls_late_and_the_constant_never() -> None:
    linear, cosine = learning_rates(105, 0.1), learning_rates(105, 0.1, "cosine")
    assert cosine[20] > linear[20] and cosine[90] < linear[90]
    assert cosine[54] == pytest.approx(0.055)
    assert learning_rates(4, 0.1, "constant", 2) == pytest.approx([0.05, 0.1, 0.1, 0.1])
    assert learning_rates(3, 0.1, "constant", 0) == pytest.approx([0.1] * 3)
    assert len(learning_rates(3, 0.1, "linear", 10)) == 3


def test_the_plan_carries_the_schedule() -> None:
    plan = private(Settings(schedule="cosine", warmup_steps=9))
    assert (plan.schedule, plan.warmup_steps) == ("cosine", 9)
    assert plan_open(Settings(schedule="constant"), units=1, records=9).schedule == "constant"


@pytest.mark.parametrize(
    ("settings", "field", "said"),
    [
        (Settings(), "adjacency", "add or remove one patient with all of its records"),
        (Settings(objective="dpo"), "adjacency", "all of its preference pairs"),
        (Settings(objective="dpo", beta=0.2), "learnt_from", "DPO, beta 0.2"),
        (Settings(objective="pretrain"), "adjacency", "all of its texts"),
        (Settings(objective="distill", teacher="big"), "learnt_from", "teacher big"),
        (Settings(records_per_unit=3), "sampling", "Poisson over patients, rate 0.35; of a patient up to 3"),
        (Settings(), "mechanism", "gradients of patients, each the mean over its records"),
        (
            Settings(sampling="record", sample_rate=0.1),
            "mechanism",
            "gradients of records, each clipped alone",
        ),
        (Settings(), "trained", "B only, A is left as it was drawn"),
        (Settings(freeze_a=False, rslora=True, layers=2), "trained", "rank-stabilised LoRA of rank 4"),
        (Settings(method="last-layers", layers=2), "trained", "all weights of the last 2 layers"),
        (Settings(method="prompt"), "trained", "16 new tokens"),
    ],
)
def test_the_statement_says_what_this_run_did(settings: Settings, field: str, said: str) -> None:
    assert said in statement(private(settings), settings)[field]


def test_the_statement_says_what_is_not_protected() -> None:
    def left_out(settings: Settings) -> str:
        return " | ".join(statement(private(settings), settings)["not_protected"])

    plain = left_out(Settings())
    assert (
        "validation and test records" in plain
        and "teacher" not in plain
        and "which step was kept" not in plain
    )
    assert "the teacher big was trained on" in left_out(Settings(objective="distill", teacher="big"))
    assert "which step was kept" in left_out(Settings(early_stop=3))
    assert "at most 2 records" in left_out(Settings(sampling="record", records_per_unit=2, sample_rate=0.1))


def test_every_method_has_words() -> None:
    from appliance.train.settings import METHODS

    assert len({trained_words(Settings(method=method)) for method in METHODS}) == len(METHODS)


def test_steps_that_the_ledger_does_not_know_get_no_certificate(home: Home) -> None:
    open_budget(home, "inbox", unit="patient", units=900, delta=None, who="test")
    plan = plan_private(Settings(), units=900, candidates=900, records=900, unit="patient", budget=budget())
    job = Job(id="0001", kind="train", folder=home.jobs, home=home, who="test")
    dataset: Any = SimpleNamespace(name="inbox", labels=())
    purse = Purse(home, "inbox", job="0001", run=plan.charged(plan.steps), limit=8.0)
    purse.charge(2)
    told = privacy_of(job, plan, Settings(), dataset, 2)
    assert told is not None and told["steps_charged"] == 2
    with pytest.raises(PrivacyRefused, match="in the ledger"):
        privacy_of(job, plan, Settings(), dataset, 3)
