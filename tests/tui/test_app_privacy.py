"""The Privacy screen: what is left, what was spent, what attacks found; and its report as a file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import app_site as a
import pytest
from app_site import screens, shown, until
from textual.pilot import Pilot
from textual.widgets import Input

from appliance.privacy import ledger
from appliance.privacy.accountant import Steps, epsilon
from tui import session_privacy
from tui.app import Cloister
from tui.cli.privacy_lines import finding_lines, meaning_lines, short_charges, state_word
from tui.screens.form import FormWindow
from tui.screens.frame import Looking
from tui.screens.modals import Confirm
from tui.screens.privacy_detail import PrivacyDetail
from tui.session import Session

RUNS = (
    Steps(noise_multiplier=2.0, sample_rate=0.1, draws=1, steps=30),
    Steps(noise_multiplier=1.5, sample_rate=0.1, draws=1, steps=20),
)


def finding(verdict: str, name: str, on: str = "lora-0002") -> dict[str, object]:
    said = {"found": f"Found of {name}.", "ceiling": "little", "figures": {}}
    return {"test": "D", "name": name, "on": on, "verdict": verdict} | said


REPORT = {
    "job": "0009",
    "created": "2026-11-27T09:20:00+00:00",
    "model": "lora-0002",
    "verdict": "INCONCLUSIVE",
    "verdicts": {"lora-0002": "INCONCLUSIVE"},
    "findings": [
        finding("PASS", "blind baseline"),
        finding("NOT APPLICABLE", "planted secrets"),
        finding("INCONCLUSIVE", "membership by loss"),
    ],
    "limits": ["Not detected is not private."],
}


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looking, "EVERY", 0.4)


@pytest.fixture
def site(tmp_path: Path) -> Session:
    """Two runs on one dataset, and a model of the second."""
    site = a.session(tmp_path)
    a.models(site.home)
    ledger.open_budget(site.home, "inbox", unit="patient", units=1610, delta=None, who="mira")
    for number, run in enumerate(RUNS, 1):
        ledger.Purse(site.home, "inbox", job=f"{number:04}", run=run, limit=8.0).charge(run.steps)
    return site


def test_what_was_spent_by_what_and_what_it_means(site: Session) -> None:
    delta = ledger.delta_for(1610)
    first, both = epsilon(RUNS[:1], delta), epsilon(RUNS, delta)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("8")
        await until(pilot, lambda: "Spent on inbox" in shown(app), "no budget")
        screen = shown(app)
        assert f"{both:.2f}/8" in screen and "OK" in screen
        assert f"job 0001  eps {first:.2f}" in screen and f"lora-0002  eps {both:.2f}" in screen
        assert "None was run yet: press a." in screen
        assert f"(e^{both:.2f})" in screen
        await pilot.press("a")
        assert isinstance(app.screen, Confirm) and "Attack lora-0002" in shown(app)
        await pilot.press("escape", "enter")
        await until(pilot, lambda: isinstance(app.screen, PrivacyDetail), "no detail")
        await until(pilot, lambda: "epsilon after" in shown(app), "no charges")
        await pilot.press("pagedown")
        await until(pilot, lambda: "cloister audit-privacy lora-0002" in shown(app), "no next step")

    screens(site, act)


def test_attack_tests_are_told_worst_first_and_written_out(site: Session, tmp_path: Path) -> None:
    (site.home.reports / "0009-privacy.json").write_text(json.dumps(REPORT))

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("8")
        await until(pilot, lambda: "Attack tests on lora-0002: INCONCLUSIVE" in shown(app), "no tests")
        screen = shown(app)
        assert screen.index("membership by loss") < screen.index("blind baseline")
        assert "planted secrets" not in screen
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, FormWindow), "no form")
        app.screen.query_one(Input).value = str(tmp_path / "out.txt")
        await pilot.press("enter", "tab", "enter")
        await until(pilot, (tmp_path / "out.txt").is_file, "not written")

    screens(site, act)
    text = (tmp_path / "out.txt").read_text()
    assert "planted secrets" in text and "Not detected is not private." in text and "epsilon after" in text
    told = site.audit_tail(1)[-1]
    assert (told["what"], told["target"]) == ("report.export", "inbox")


def test_the_charges_add_up_to_what_the_budget_has_spent(site: Session) -> None:
    found = session_privacy.charges(site, "inbox")
    (row,) = site.budgets()
    assert [one["job"] for one in found] == ["0001", "0002"]
    assert found[-1]["epsilon_after"] == pytest.approx(row["epsilon_spent"])
    assert found[0]["epsilon_after"] < found[1]["epsilon_after"]


def test_words_for_what_is_left() -> None:
    words = [state_word(spent, 8) for spent in (0, 6.39, 6.4, 7.99, 7.9999)]
    assert words == ["OK", "OK", "LOW", "LOW", "SPENT"]
    row = {"epsilon_spent": 2.0, "unit": "patient", "delta": 1e-5}
    assert f"more than {math.exp(2):.1f} times as likely" in " ".join(meaning_lines(row, 200))
    assert "Nothing was spent" in meaning_lines(row | {"epsilon_spent": 0.0}, 200)[0]


def test_what_does_not_fit_is_counted() -> None:
    days = range(1, 10)
    charges = [{"first": f"2026-11-0{day}", "job": f"000{day}", "epsilon_after": day / 10} for day in days]
    lines = short_charges(charges, {}, 4)
    assert lines[0] == "6 before these" and lines[-1].endswith("eps 0.90") and len(lines) == 4
    report = {"findings": [finding("PASS", f"test {number}") for number in range(9)]}
    lines = finding_lines(report, 40, 4)
    assert len(lines) == 4 and lines[-1] == "and 6 more: enter shows all" and max(map(len, lines)) <= 40
