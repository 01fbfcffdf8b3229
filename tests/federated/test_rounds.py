"""The course of one round: when it waits, closes, asks again, gives up."""

from __future__ import annotations

import json

import pytest

from federated import rounds
from federated.rounds import Round, as_json, next_step, round_of

SITES = ("a", "b", "c", "d")


def begun(admitted: str = "", refused: str = "", asked: int = 1) -> Round:
    """A round of 60 seconds in which these sites have answered."""
    state = rounds.opened_round(1, "0" * 64, SITES, now=100.0, seconds=60.0)
    for site in admitted:
        state = rounds.with_update(state, site, site * 64)
    for site in refused:
        state = rounds.with_refusal(state, site, "norm")
    return round_of(as_json(state) | {"asked": asked})


@pytest.mark.parametrize(
    ("admitted", "refused", "asked", "now", "step"),
    [
        ("", "", 1, 100.0, "wait"),
        ("abc", "", 1, 159.0, "wait"),
        ("abc", "", 1, 160.0, "aggregate"),
        ("abcd", "", 1, 101.0, "aggregate"),
        ("abc", "d", 1, 101.0, "aggregate"),
        ("ab", "", 1, 160.0, "ask-again"),
        ("ab", "cd", 1, 101.0, "wait"),
        ("ab", "cd", 1, 160.0, "ask-again"),
        ("ab", "", rounds.MOST_ASKED, 160.0, "give-up"),
        ("abc", "", rounds.MOST_ASKED, 160.0, "aggregate"),
    ],
)
def test_what_to_do(admitted: str, refused: str, asked: int, now: float, step: str) -> None:
    assert next_step(begun(admitted, refused, asked), now=now, quorum=3) == step


def test_the_first_answer_stays() -> None:
    state = begun("a", "b")
    assert rounds.with_update(state, "a", "f" * 64) == state
    assert rounds.with_refusal(state, "a", "norm") == state
    assert rounds.with_update(state, "x", "f" * 64) == state
    assert rounds.with_update(state, "b", "f" * 64).admitted.keys() == {
        "a",
        "b",
    }  # a right one after a wrong one


def test_asked_again_keeps_what_is_there() -> None:
    again = rounds.asked_again(begun("a", "b"), ["b", "c"], now=200.0, seconds=60.0)
    assert again.cohort == ("a", "b", "c")
    assert again.open == ("b", "c")
    assert (again.deadline, again.asked) == (260.0, 2)


def test_a_state_survives_json() -> None:
    state = begun("ab", "c")
    assert round_of(json.loads(json.dumps(as_json(state)))) == state


def test_who_comes_back_may_send_what_the_link_lost_and_nothing_else() -> None:
    state = rounds.with_refusal(begun("ab", "d"), "c", "flower-5")
    assert state.open == () and next_step(state, now=101.0, quorum=3) == "wait"
    back = rounds.with_return(state, ["a", "c", "d"])
    assert back.open == ("c",) and back.refused == {"d": "norm"} and back.admitted == state.admitted
    assert rounds.with_return(back, ["c"]) == back
