from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.core.errors import ConfigWrong, GateFailed
from appliance.evaluate import gate as gate_module
from appliance.evaluate.compare import Paired, paired_share
from appliance.evaluate.gate import Gate, Rule, both, judge_gain, judge_quantised, rule_from
from appliance.evaluate.score import Scores


def scores(right: NDArray[np.bool_], *, nll: NDArray | None = None, labels: bool = True) -> Scores:
    count = len(right)
    return Scores(
        ids=tuple(f"r{at}" for at in range(count)),
        labels=("a", "b") if labels else (),
        gold=np.zeros(count, np.int64),
        predicted=np.where(right, 0, 1),
        confidence=np.ones(count),
        free=right,
        nll=np.full(count, 2.0) if nll is None else nll,
        tokens=np.full(count, 2),
        fits=np.ones(count, bool),
        cut=np.zeros(count, bool),
        tokens_sha256="",
    )


def share(hits: int, rows: int, seed: int = 0) -> Scores:
    right = np.zeros(rows, bool)
    right[np.random.default_rng(seed).permutation(rows)[:hits]] = True
    return scores(right)


def clause(gate: Gate, name: str) -> bool:
    return next(clause.passed for clause in gate.clauses if clause.name == name)


RULE = Rule()


def test_a_clear_gain_passes_and_every_clause_says_so() -> None:
    gate = judge_gain(share(300, 1000, 1), share(800, 1000, 2), np.arange(1000), RULE)
    assert gate.passed
    assert [clause.name for clause in gate.clauses] == ["accuracy", "chance", "units"]
    assert all(clause.need and clause.got for clause in gate.clauses)


@pytest.mark.parametrize(
    ("low", "said"),
    [(0.149996, "+14.9996%"), (0.1496, "+14.96%"), (0.15, "+15.0%"), (0.1504, "+15.04%"), (0.2, "+20.0%")],
)
def test_a_figure_beside_the_limit_is_told_apart_from_it(
    low: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paired(*given: object) -> Paired:
        pair = paired_share(*given)  # type: ignore[arg-type]
        return dataclasses.replace(pair, relative=dataclasses.replace(pair.relative, low=low))

    monkeypatch.setattr(gate_module, "paired_share", paired)
    found = judge_gain(share(300, 1000, 1), share(800, 1000, 2), np.arange(1000), RULE).clauses[0]
    assert found.got.endswith(f"(low {said})") and "relative to the base" in found.need
    assert found.passed is (low >= 0.15)


def test_a_gain_above_the_rule_on_few_rows_does_not_pass_and_says_how_many_would_do() -> None:
    gate = judge_gain(share(500, 1000, 1), share(610, 1000, 2), np.arange(1000), RULE)  # +22 %
    assert not clause(gate, "accuracy")
    assert clause(gate, "chance")
    assert gate.rows_needed is not None and gate.rows_needed > 1000
    # As many rows as it asked for, of the same kind, do pass.
    times = round(1.3 * gate.rows_needed / 1000)
    base, tuned = (np.tile(share(hits, 1000, seed).right, times) for hits, seed in ((500, 1), (610, 2)))
    assert judge_gain(scores(base), scores(tuned), np.arange(1000 * times), RULE).passed


def test_a_gain_below_the_rule_has_no_number_of_rows_that_would_do() -> None:
    gate = judge_gain(share(500, 1000, 1), share(550, 1000, 2), np.arange(1000), RULE)
    assert not gate.passed and gate.rows_needed is None


def test_from_nothing_right_needs_more_than_a_handful() -> None:
    assert judge_gain(share(0, 400), share(300, 400), np.arange(400), RULE).passed
    assert not judge_gain(share(0, 400), share(0, 400), np.arange(400), RULE).passed
    lucky = judge_gain(share(0, 20), share(4, 20), np.arange(20), RULE)
    assert clause(lucky, "accuracy") and not clause(lucky, "chance") and not lucky.passed


def test_many_rows_of_few_patients_do_not_pass() -> None:
    base, tuned = share(300, 1000, 1), share(900, 1000, 2)
    gate = judge_gain(base, tuned, np.arange(1000) % 12, RULE)
    assert not clause(gate, "units") and not gate.passed


def test_a_base_too_good_for_the_rule_is_said_to_be() -> None:
    gate = judge_gain(share(950, 1000, 1), share(990, 1000, 2), np.arange(1000), RULE)
    assert not gate.passed and "not possible" in gate.notes[0]


def test_one_group_that_got_worse_fails_the_gate() -> None:
    base, tuned = share(300, 1000, 1).right, share(900, 1000, 2).right
    old = np.arange(1000) < 200
    base[old], tuned[old] = True, np.arange(200) % 2 == 0
    groups = {"age_band 80+": old, "age_band 20-39": ~old}
    gate = judge_gain(scores(base), scores(tuned), np.arange(1000), RULE, groups)
    assert not gate.passed and not clause(gate, "groups") and clause(gate, "accuracy")
    assert "80+" in gate.clauses[-1].got


def test_free_answers_are_judged_on_the_upper_end_of_perplexity() -> None:
    random = np.random.default_rng(0)
    base = random.normal(6.0, 0.5, 400)
    right = np.zeros(400, bool)
    clear = judge_gain(
        scores(right, nll=base, labels=False),
        scores(right, nll=base - 0.6, labels=False),
        np.arange(400),
        RULE,
    )
    assert clear.passed and clear.clauses[0].name == "perplexity"
    noisy = base - 0.33 + random.normal(0, 1.0, 400)  # -15.2 % on average, not for sure
    unsure = judge_gain(
        scores(right, nll=base, labels=False), scores(right, nll=noisy, labels=False), np.arange(400), RULE
    )
    assert not unsure.passed


def test_a_quantised_file_may_lose_two_points_and_no_more() -> None:
    reference = np.arange(1000) < 800
    for lost, passes in ((0, True), (20, True), (21, False)):
        quantised = reference.copy()
        quantised[:lost] = False
        gate = judge_quantised(scores(reference), scores(quantised), np.arange(1000), RULE)
        assert gate.passed is passes, lost


def test_refuses_instead_of_passing_on_nothing() -> None:
    empty = share(0, 0)
    with pytest.raises(GateFailed):
        judge_gain(empty, empty, np.arange(0), RULE)
    unscored = dataclasses.replace(share(5, 10), fits=np.zeros(10, bool))
    with pytest.raises(GateFailed):
        judge_quantised(unscored, unscored, np.arange(10), RULE)
    with pytest.raises(GateFailed):
        both()


def test_refuses_rows_that_do_not_pair() -> None:
    base, tuned = share(30, 100, 1), share(90, 100, 2)
    shuffled = dataclasses.replace(tuned, ids=tuned.ids[::-1])
    for other in (shuffled, share(90, 99), dataclasses.replace(tuned, labels=("b", "a"))):
        with pytest.raises(ConfigWrong):
            judge_gain(base, other, np.arange(100), RULE)
    free = [scores(np.zeros(100, bool), labels=False) for _ in range(2)]
    with pytest.raises(ConfigWrong):
        judge_gain(free[0], dataclasses.replace(free[1], tokens=np.full(100, 3)), np.arange(100), RULE)


def test_gate_settings_are_checked() -> None:
    assert rule_from({"gain": 0.2}).gain == 0.2
    with pytest.raises(ConfigWrong, match="gian"):
        rule_from({"gian": 0.2})
    with pytest.raises(ConfigWrong, match="gain, units"):
        rule_from({"gain": 15, "units": 1})
