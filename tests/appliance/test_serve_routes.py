from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace

import pytest
import route_support as r
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.db import reading
from appliance.core.errors import ConfigWrong, NoRoom, NotFound
from appliance.core.home import Home
from appliance.models import registry
from appliance.security import audit
from appliance.serve import counts as counting
from appliance.serve import route_changes, routes
from appliance.serve.counts import Counts, arms, counts
from appliance.serve.routes import HYBRID, Routes, get, load
from appliance.serve.split import in_b, new_salt, place

SALT = "00" * 16


def split(home: Home, name: str = "desk", share: float = 0.5) -> None:
    r.models(home, "old", "new")
    route_changes.make_split(home, name, a="old", b="new", share=share, difference=0.1, who="mira")


# --- who gets which arm


@given(st.text(max_size=20), st.none() | st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_a_person_stays_and_a_larger_share_only_moves_people_to_b(
    scope: str, user: str | None, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    assert in_b(SALT, scope, user, low) == in_b(SALT, scope, user, low)
    assert in_b(SALT, scope, user, low) <= in_b(SALT, scope, user, high)
    assert not in_b(SALT, scope, user, 0.0) and in_b(SALT, scope, user, 1.0)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_share_is_kept(share: float) -> None:
    found = sum(in_b(SALT, f"key{n % 7}", f"user{n}", share) for n in range(4000)) / 4000
    assert found == pytest.approx(share, abs=0.03)


def test_key_and_user_cannot_run_into_each_other_and_both_count() -> None:
    people = [("ab", "c"), ("a", "bc"), ("ab", None), ("ab", ""), ("ac", "c")]
    assert len({place(SALT, scope, user) for scope, user in people}) == len(people)


def test_another_salt_is_another_drawing() -> None:
    """Nobody who does not know the salt can tell, or choose, an arm."""
    one, other = new_salt(), new_salt()
    same = sum(in_b(one, "k", str(n), 0.5) == in_b(other, "k", str(n), 0.5) for n in range(2000))
    assert one != other and 850 < same < 1150


# --- routes


def test_a_split_picks_by_person_and_says_which_arm(home: Home) -> None:
    split(home)
    route = get(home, "desk")
    picked = {user: route.pick("key", "anything", user) for user in map(str, range(50))}
    assert {choice.model for choice in picked.values()} == {"old", "new"}
    assert {choice.reason for choice in picked.values()} == {"split: arm A", "split: arm B"}
    assert all(route.pick("key", "something else", user) == choice for user, choice in picked.items())
    assert route.after(0.0) is None


def test_a_hybrid_by_confidence_sends_on_what_is_unsure(home: Home) -> None:
    r.models(home, "small", "large")
    facts = {"a": "small", "b": "large", "by": "confidence", "threshold": 0.7, "table": []}
    route = route_changes.add(home, "desk", HYBRID, facts, who="mira")
    assert route.pick("key", "text").model == "small"
    assert route.after(0.7) is None and route.after(None) is None
    sent = route.after(0.69)
    assert sent is not None and (sent.model, sent.reason) == ("large", "unsure: 0.69 < 0.7")
    route_changes.roll_back(home, "desk", who="mira")
    assert get(home, "desk").after(0.1) is None


def test_rollback_is_one_step_and_the_next_request_feels_it(home: Home) -> None:
    split(home, share=1.0)
    with closing(Routes(home)) as live:
        before = live.get("desk")
        assert before is not None and before.pick("key", "x").model == "new"
        route_changes.roll_back(home, "desk", who="joe")
        after = live.get("desk")
        assert after is not None and after.pick("key", "x").model == "old"
        route_changes.roll_back(home, "desk", who="joe")  # changes nothing
        route_changes.change(home, "desk", share=0.9999999, who="joe")
        again = live.get("desk")
        assert again is not None and again.rolled_back is None and again.pick("key", "x").model == "new"
        route_changes.remove(home, "desk", who="joe")
        assert live.get("desk") is None
    with reading(home) as link:
        lines = [line for line in audit.tail(link, 50) if line["what"].startswith("route.")]
    assert [line["what"] for line in lines] == ["route.new", "route.rollback", "route.set", "route.remove"]
    assert lines[0]["a"] == "old" and lines[0]["share"] == 1.0 and lines[1]["who"] == "joe"


def test_counts_do_not_make_the_endpoint_read_its_routes_again(home: Home) -> None:
    split(home)
    with closing(Routes(home)) as live:
        before = live.get("desk")
        note = Counts(home)
        note.note("desk", "old", "requests")
        note.flush()
        assert live.get("desk") is before


def test_the_salt_is_in_no_audit_line(home: Home) -> None:
    split(home)
    route_changes.change(home, "desk", share=0.3, who="mira")
    salt = get(home, "desk").facts["salt"]
    with reading(home) as link:
        assert salt not in str(audit.tail(link, 50))


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("desk", "old", "new"),
        ("old", "old", "new"),
        ("x", "old", "old"),
        ("../x", "old", "new"),
        ("", "old", "new"),
    ],
)
def test_names_that_are_taken_or_wrong_are_refused(home: Home, name: str, a: str, b: str) -> None:
    split(home)
    with pytest.raises(ConfigWrong):
        route_changes.make_split(home, name, a=a, b=b, share=0.5, difference=0.1, who="mira")
    assert list(load(home)) == ["desk"]


def test_a_model_that_is_not_there_or_has_no_file_is_refused(home: Home) -> None:
    r.models(home, "old")
    registry.add(home, replace(registry.get(home, "old"), name="base", kind="base"), who="mira")
    for other in ("nothing", "base"):
        with pytest.raises(NotFound):
            route_changes.make_split(home, "x", a="old", b=other, share=0.5, difference=0.1, who="mira")


@pytest.mark.parametrize(
    "wrong",
    [{"share": 1.5}, {"share": float("nan")}, {"threshold": 0.5}, {}, {"share": 0.5, "threshold": 0.5}],
)
def test_settings_that_do_not_fit_are_refused(home: Home, wrong: dict[str, float]) -> None:
    split(home)
    with pytest.raises(ConfigWrong):
        route_changes.change(home, "desk", **wrong, who="mira")
    assert get(home, "desk").facts["share"] == 0.5


# --- counts


def test_counts_come_in_batches_and_add_up(home: Home) -> None:
    split(home)
    now = [0.0]
    note = Counts(home, every=5, clock=lambda: now[0])
    threads = [
        threading.Thread(target=lambda: [note.note("desk", "new", "requests") for _ in range(500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    note.note("desk", "new", "ratings")
    note.note("desk", "new", "rating_sum", 4)
    assert not note.due() and counts(home, "desk")["new"]["requests"] == 0
    now[0] = 5
    assert note.due()
    note.flush()
    note.flush()
    note.note("desk", "new", "requests")
    note.flush()
    found = counts(home, "desk")
    assert found["new"]["requests"] == 2001 and found["old"]["requests"] == 0
    a, b = arms(found, get(home, "desk"))
    assert b.rating == 4.0 and a.rating is None


def test_counts_that_could_not_be_written_are_not_lost(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    split(home)
    note = Counts(home)
    note.note("desk", "old", "up")

    def full(*_: object) -> None:
        raise NoRoom("full")

    with monkeypatch.context() as broken:
        broken.setattr(counting, "_add", full)
        with pytest.raises(NoRoom):
            note.flush()
    note.note("desk", "old", "up")
    note.flush()
    assert counts(home, "desk")["old"]["up"] == 2


def test_counts_of_a_removed_route_go_nowhere_and_a_new_one_starts_at_nothing(home: Home) -> None:
    split(home)
    note = Counts(home)
    note.note("desk", "old", "up")
    note.flush()
    note.note("desk", "old", "up")
    route_changes.remove(home, "desk", who="mira")
    note.flush()
    with reading(home) as link:
        assert link.execute("SELECT COUNT(*) FROM route_counts").fetchone()[0] == 0
    route_changes.make_split(home, "desk", a="old", b="new", share=0.5, difference=0.1, who="mira")
    assert counts(home, "desk")["old"]["up"] == 0
    with pytest.raises(NotFound):
        counts(home, "nothing")


def test_only_known_things_are_counted(home: Home) -> None:
    with pytest.raises(ValueError, match="prompt text"):
        Counts(home).note("desk", "old", "prompt text")


def test_load_of_no_routes(home: Home) -> None:
    assert load(home) == {} and routes.SPLIT == "split"
