"""A site's own rules: each reason comes up alone, and a right round has none."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any

import pytest
from world import NOW, agreement

from appliance.core.errors import ConfigWrong
from federated.policy import WORDS, Policy, objections, policy_of

FEDERATION = agreement(5)
POLICY = Policy(dataset="notes", epsilon=8.0, delta=1e-5, max_rounds=10)


def reasons(policy: dict[str, Any] | None = None, **asked: Any) -> list[str]:
    """The objections of POLICY, changed by `policy`, to a right round, changed by `asked`."""
    right: dict[str, Any] = {
        "federation": FEDERATION,
        "number": 7,
        "cohort": 3,
        "done": 9,
        "unit": "patient",
        "now": NOW,
    }
    held = right | asked
    return list(objections(POLICY.model_copy(update=policy or {}), held.pop("federation"), **held))


def test_a_right_round_has_none() -> None:
    assert reasons() == []


def _training(**what: Any) -> Any:
    return FEDERATION.model_copy(update={"training": FEDERATION.training.model_copy(update=what)})


@pytest.mark.parametrize(
    ("reason", "policy", "asked"),
    [
        ("ended", {}, {"federation": FEDERATION.model_copy(update={"ended": True})}),
        ("ended", {}, {"now": NOW + timedelta(days=90)}),
        ("paused", {"paused": True}, {}),
        ("vetoed", {"vetoed": [3, 7]}, {}),
        ("rounds", {}, {"done": 10}),
        ("cohort", {"min_cohort": 4}, {}),
        ("cohort", {"min_cohort": 2}, {"cohort": 2}),
        ("not-private", {}, {"federation": _training(private=False)}),
        ("plain", {"secure_only": True}, {}),
        ("epsilon", {"epsilon": 7.9}, {}),
        ("delta", {"delta": 9e-6}, {}),
        ("unit", {}, {"unit": "record"}),
    ],
)
def test_each_reason_alone(reason: str, policy: dict[str, Any], asked: dict[str, Any]) -> None:
    assert reasons(policy, **asked) == [reason]
    assert WORDS[reason]  # type: ignore[index]


@pytest.mark.parametrize(
    ("start", "end", "hour", "allowed"),
    [
        (20, 6, 23, True),
        (20, 6, 5, True),
        (20, 6, 6, False),
        (20, 6, 12, False),
        (8, 17, 8, True),
        (8, 17, 17, False),
    ],
)
def test_hours_go_over_midnight(start: int, end: int, hour: int, allowed: bool) -> None:
    now = datetime(2026, 3, 2, hour, tzinfo=NOW.tzinfo)
    found = reasons({"from_time": time(start), "to_time": time(end)}, now=now)
    assert found == ([] if allowed else ["hours"])


def test_a_file_is_read_and_its_errors_are_named() -> None:
    content = b'dataset = "notes"\nepsilon = 3.0\ndelta = 1e-6\nfrom_time = 20:00:00\nto_time = 06:00:00\n'
    assert policy_of(content).from_time == time(20)
    for bad, words in (
        (content + b"min_cohort = 1\n", "min_cohort"),
        (content + b"min_cohorts = 3\n", "min_cohorts"),
        (b"epsilon = 1.0\n", "dataset"),
        (b"=", "cannot be read"),
    ):
        with pytest.raises(ConfigWrong, match=words):
            policy_of(bad)
