"""Serve on screen: a real endpoint's figures, a question that streams, feedback, keys, routes, the form."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import app_site as a
import pytest
from app_site import lines, screens, shown, until
from textual.pilot import Pilot
from textual.widgets import Input

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "appliance"))
import serve_support as support

from appliance.core.errors import ConfigWrong
from appliance.security.keys import OWN_NAME
from tui import session_routes
from tui.app import Cloister
from tui.fields import answers
from tui.screens import serve_lines
from tui.screens.frame import Looking
from tui.screens.rating import said
from tui.screens.serve_form import serving_fields, serving_spec
from tui.screens.serve_keys import scope_of
from tui.screens.site import look
from tui.session import Session
from tui.session_feedback import list_feedback

FIGURES = {
    "model": "clinic",
    "engines": {"clinic": {"engine": "native", "slots": 8, "threads": 4}},
    "names": ["clinic", "large"],
    "active": 5,
    "queued": 2,
    "requests": 100,
    "errors": 0,
    "restarts": 0,
    "first_token_p50_ms": 180.4,
    "first_token_p95_ms": 410.0,
    "joules_per_query": 1440.0,
    "energy": "measured",
    "tokens_per_second": 31.2,
    "rss_mb": 900.0,
    "models": {"clinic": 71, "large": 18},
    "cache_hits": 11,
    "cache_misses": 89,
    "routes": {},
}


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looking, "EVERY", 0.4)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A site whose endpoint runs: the shipped base as a label model, in llama.cpp."""
    home = support.new_home(tmp_path_factory.mktemp("served") / "home")
    with support.endpoint(home):
        yield a.session(home.path)


def test_a_question_is_streamed_judged_and_the_key_gone_at_the_end(served: Session) -> None:
    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("6")
        await until(pilot, lambda: "Engine  UP" in shown(app), "no endpoint")
        await until(pilot, lambda: "slots   0/4 busy" in shown(app), "no figures")
        await pilot.press("enter")
        assert isinstance(app.screen.focused, Input)
        await pilot.press(*"ward 4 and 5", "enter")
        await until(pilot, lambda: "first token" in shown(app).split("Try it")[1], "no answer", 30)
        text = shown(app)
        assert "> ward 4 and 5" in text and "% sure" in text and app.current_mode == "serve"
        assert max(map(len, lines(app))) <= 80
        own = [key for key in served.api_keys() if key.name == OWN_NAME and not key.revoked]
        assert len(own) == 1
        assert list_feedback(served) == []  # nothing is stored unless it is asked for
        await pilot.press(*"nasty", "enter")  # the next question, not the keys of the screen
        await until(pilot, lambda: "> nasty" in shown(app) and "% sure" in shown(app), "not asked", 30)
        await pilot.press("escape", "f")
        await until(pilot, lambda: "What is it worth?" in shown(app), "no form")
        await pilot.press("right", "down", "right", "right", "right", "right", "right", "up", "up", "enter")
        await until(pilot, lambda: len(list_feedback(served)) == 1, "not stored")

    screens(served, act)
    (one,) = list_feedback(served)
    assert one.thumb == 1 and one.ratings == {"correct": 5}
    assert not [key for key in served.api_keys() if key.name == OWN_NAME and not key.revoked]


def test_a_key_is_shown_once_and_can_be_ended(served: Session) -> None:
    before = {key.id for key in served.api_keys()}

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("6", "k")
        await until(pilot, lambda: "tests" in shown(app), "no keys")
        await pilot.press("n")
        await until(pilot, lambda: "New API key" in shown(app), "no form")
        await pilot.press(*"ward", "up", "enter")
        await until(pilot, lambda: "shown this once" in shown(app), "not made")
        made = next(key for key in served.api_keys() if key.id not in before)
        assert f"clo_{made.id}_" in shown(app) and made.name == "ward"
        await pilot.press("escape")
        await until(pilot, lambda: made.id in shown(app), "not listed")
        assert f"clo_{made.id}_" not in shown(app)
        for _ in range(5):  # the newest is on top
            await pilot.press("up")
        assert app.screen.chosen == made.id  # type: ignore[attr-defined]
        await pilot.press("x", "right", "enter")
        await until(pilot, lambda: "revoked" in shown(app), "not ended")

    screens(served, act)
    made = next(key for key in served.api_keys() if key.id not in before and key.name == "ward")
    assert made.revoked and made.grant.expires is not None


def test_stop_asks_first_and_an_empty_screen_says_what_to_do(tmp_path: Path) -> None:
    site = a.session(tmp_path / "home")
    folder = a.job(site.home, "serve", "serve clinic", process=a.me())
    a.tell(folder, "started", kind="serve")
    a.tell(folder, "ready", url="http://127.0.0.1:8080", model="clinic", models=["clinic"], routes=[])
    a.tell(folder, "progress", stage="serving", done=1, total=1, **FIGURES)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("6")
        await until(pilot, lambda: "slots   5/8 busy   queue 2" in shown(app), "no figures")
        text = shown(app)
        assert "first token p50 180 p95 410 ms" in text and "cost/query 0.0004 kWh" in text
        assert "clinic" in text and "71% [#######...]" in text and "cache hit" in text
        await pilot.press("s")
        await until(pilot, lambda: "gets no more answers" in shown(app), "not asked")
        await pilot.press("escape")

    screens(site, act)

    async def empty(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("6")
        await until(pilot, lambda: "No endpoint runs." in shown(app), "no word")
        assert "Press n to start one" in shown(app)
        await pilot.press("s", "enter", "n")
        await until(pilot, lambda: "no GGUF file yet" in shown(app), "a form about nothing")

    screens(a.session(tmp_path / "other"), empty)


def test_routes_are_made_rolled_back_and_removed_by_name(tmp_path: Path) -> None:
    site = a.session(tmp_path / "home")
    a.models(site.home)
    for name in ("one", "two"):
        support.add_model(site.home, name, support.gguf())
    session_routes.make_split(site, "trial", a="one", b="two", share=0.5, difference=0.1)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("6", "r")
        await until(pilot, lambda: "trial" in shown(app), "no routes")
        await pilot.press("enter")
        await until(pilot, lambda: "Decide once each arm" in shown(app), "not shown")
        await pilot.press("escape", "b")
        await until(pilot, lambda: "rolled back" in shown(app), "not rolled back")
        await pilot.press("c")
        await until(pilot, lambda: "Percent who get B" in shown(app), "no form")
        await pilot.press("up", "enter")
        await until(pilot, lambda: "live" in shown(app), "still rolled back")
        await pilot.press("x")
        await until(pilot, lambda: "type trial to go on" in shown(app), "removed without its name")
        await pilot.press("shift+tab", *"trial", "tab", "tab", "enter")
        await until(pilot, lambda: "No route yet." in shown(app), "still there")

    screens(site, act)
    assert session_routes.routes(site) == []


def test_the_form_makes_a_spec_that_the_job_takes(served: Session) -> None:
    view = look(served, 0.0, 10)
    fields = serving_fields(view, ungated=True)
    given = answers(fields, {field.key: field.default or "" for field in fields} | {"model": support.NAME})
    spec = serving_spec(given)
    assert spec["models"] == [support.NAME] and spec["host"] == "127.0.0.1" and spec["ungated"] is True
    assert spec["slots"] == 4 and spec["most_loaded"] is None
    small = serving_spec(given | {"machine": "small box", "reach": "other machines too"})
    assert (small["slots"], small["most_loaded"], small["host"]) == (1, 1, "0.0.0.0")  # noqa: S104
    for wrong in ({"port": 70000}, {"also": support.NAME}, {"system": Path("/no/such/file")}):
        with pytest.raises(ConfigWrong):
            serving_spec(given | wrong)


def test_home_opens_the_form_with_the_model_filled_in(served: Session) -> None:
    from tui.screens.deeds import deed_of
    from tui.steps import NextStep

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: isinstance(app.screen, Looking), "no screen")
        step = NextStep(text="", why="", command=f"cloister serve {support.NAME}")
        app.screen.carry_out(deed_of(step))  # type: ignore[attr-defined]
        await until(
            pilot, lambda: f"< {support.NAME} >" in shown(app) or support.NAME in shown(app), "no form"
        )
        assert "Who may reach it" in shown(app)

    screens(served, act)


# --- pure


def event(at: str, **told: Any) -> dict[str, Any]:
    return {"at": f"2026-11-26T{at}+00:00", "event": "progress", **told}


def test_the_last_hour_is_what_came_since() -> None:
    now = serve_lines.seconds("2026-11-26T12:00:00+00:00")
    told = [
        {"at": "2026-11-26T08:00:00+00:00", "event": "ready"},
        event("10:00:00", requests=100, errors=2),
        event("11:30:10", requests=130, errors=2),
        event("11:59:30", requests=150, errors=3),
    ]
    hour = serve_lines.last_hour(told, now)
    assert (hour.requests, hour.errors, hour.up) == (50, 1, 4 * 3600)
    assert hour.minutes[-1] == 20 and hour.minutes[-30] == 30 and sum(hour.minutes) == 50
    quiet = serve_lines.last_hour(told, now + 7200)
    assert (quiet.requests, sum(quiet.minutes)) == (0, 0)
    assert serve_lines.last_hour([], now).requests == 0
    for line in serve_lines.rate_lines(hour, 38, 4, "12:00"):
        assert len(line) <= 38
    assert serve_lines.rate_lines(hour, 38, 4, "12:00")[-1].endswith("12:00")
    assert serve_lines.up_words(4 * 3600) == "4 h 00 min" and serve_lines.up_words(273_600) == "3 d 04 h"


def test_what_was_not_said_is_refused_and_so_are_limits_nobody_can_read() -> None:
    nothing = {"thumb": "-", "correct": "-", "complete": "-", "clear": "-", "correction": None}
    with pytest.raises(ConfigWrong, match="Nothing was said"):
        said(nothing)
    assert said(nothing | {"thumb": "down", "clear": "2"}) == {"thumb": -1, "ratings": {"clear": 2}}
    key = {"models": "a, b", "collections": None, "rate": None, "tokens": "2M", "expires": "never"}
    scope = scope_of(key, support.keys.utc_now())
    assert scope["models"] == ["a", "b"] and scope["tokens_per_day"] == 2_000_000 and scope["expires"] is None
    with pytest.raises(ConfigWrong):
        scope_of(key | {"rate": "fast"}, support.keys.utc_now())
