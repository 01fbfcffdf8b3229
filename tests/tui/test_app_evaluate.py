"""Evaluate on screen and in a shell: the list, the form, a report as drawn, its page written out."""

from __future__ import annotations

import json
from pathlib import Path

import app_site as a
import pytest
from app_site import lines, screens, shown, until
from report_site import add_report
from textual.pilot import Pilot

from appliance.core.errors import ConfigWrong, NotFound
from tui import session_reports
from tui.app import Cloister
from tui.cli.entry import run
from tui.cli.report_lines import gate_lines, precision_lines, quality_lines, rule_lines
from tui.screens.evaluate_form import evaluation_fields
from tui.screens.evaluate_report import ReportScreen
from tui.screens.frame import Looking
from tui.screens.site import look
from tui.session import Session


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looking, "EVERY", 0.4)


@pytest.fixture
def site(tmp_path: Path) -> Session:
    """Three models and a report on them."""
    site = a.session(tmp_path / "home")
    a.models(site.home)
    add_report(site.home)
    return site


def test_a_report_opens_as_drawn_and_its_page_is_written_out(site: Session, tmp_path: Path) -> None:
    target = tmp_path / "page.html"

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("4")
        await until(pilot, lambda: "lora-0002-q4_k_m" in shown(app), "no list")
        await until(pilot, lambda: app.screen.chosen is not None, "no row")  # type: ignore[attr-defined]
        for _ in range(3):
            if not str(app.screen.chosen).startswith("lora-0002 "):  # type: ignore[attr-defined]
                await pilot.press("down")
        await pilot.press("enter")
        await until(pilot, lambda: "Gate  PASS" in shown(app), "no report")
        text = shown(app)
        assert "Evaluate > lora-0002" in text and "inbox@1, test split, 240 records" in text
        assert "accuracy    .542   .833" in text and "+53.8%" in text
        assert "[x] +15% accuracy relative" in text and "sex f" in text and "ms/tok" in text
        assert max(map(len, lines(app))) <= 80
        await pilot.press("pagedown", "pagedown")
        await until(pilot, lambda: "keep this report inside" in shown(app), "the limits cannot be reached")
        await pilot.press("g")
        await until(pilot, lambda: "Not by luck" in shown(app), "no rules")
        await pilot.press("escape", "x")
        await until(pilot, lambda: "keep it inside" in shown(app), "no form")
        await pilot.press("home", *["delete"] * 200)
        await pilot.press(*str(target), "enter", "tab", "enter")
        await until(pilot, target.exists, "not written")

    screens(site, act)
    page = target.read_text()
    assert "<svg" in page and "http-equiv" in page and "src=" not in page and "href=" not in page
    assert target.stat().st_mode & 0o777 == 0o600
    assert [one["what"] for one in site.audit_tail(1)] == ["report.export"]


def test_a_failed_gate_says_why(site: Session) -> None:
    add_report(site.home, job="0008", right={"lora-0002": 140})
    found = session_reports.report(site, "0008") | {"about": "lora-0002"}
    text = "\n".join(gate_lines(found, 28))
    assert "[ ] +15% accuracy relative" in text and "got +7.7%" in text
    assert all(len(line) <= 28 for line in gate_lines(found, 28))
    assert all(len(line) <= 44 for line in quality_lines(found))
    assert any(line.endswith("<") for line in precision_lines(session_reports.report(site, "0007"), 38))
    assert "+15%" in rule_lines(found["rule"], 60)[0]
    assert "bundle" in rule_lines(None, 60)[0]


def test_the_form_offers_what_is_there_and_starts_nothing_wrong(site: Session) -> None:
    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("4")
        await until(pilot, lambda: "lora-0002" in shown(app), "no list")
        await pilot.press("n")
        await until(pilot, lambda: "Compare with" in shown(app), "no form")
        assert "< lora-0002" in shown(app)
        await pilot.press(*["down"] * 6, "enter")
        await until(pilot, lambda: "error:" in shown(app), "no such data set, and nobody said so")
        assert "try:" in shown(app)

    screens(site, act)
    assert site.jobs() == []
    fields = evaluation_fields(look(site, 0.0, 10))
    assert fields[0].choices == ("lora-0002", "lora-0002-q4_k_m", "demo-base")
    assert fields[0].default == ""  # all that was tuned is measured: the first is offered


def test_it_fits_a_small_terminal(site: Session) -> None:
    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await app.push_screen(ReportScreen("0007", "lora-0002-q4_k_m"))
        await until(pilot, lambda: "Gate  PASS" in shown(app) or "accuracy" in shown(app), "no report")
        await pilot.press("pagedown")
        assert max(map(len, lines(app))) <= 70

    screens(site, act, size=(70, 20))


def test_reports_in_a_shell(site: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--home", str(site.home.path)]
    assert run(["report", "list", *at]) == 0
    assert "lora-0002-q4_k_m" in capsys.readouterr().out
    assert run(["report", "show", "lora-0002", *at]) == 0
    told = capsys.readouterr().out
    assert "Gate  PASS" in told and "By group" in told and max(map(len, told.splitlines())) <= 80
    assert run(["report", "export", "lora-0002", "--html", str(tmp_path / "a.html"), "--json", *at]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(tmp_path / "a.html")
    assert run(["report", "export", "lora-0002", "--html", str(tmp_path / "a.html"), *at]) == 2
    assert "is there" in capsys.readouterr().err


def test_what_is_not_there_is_refused(site: Session, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no report on nothing"):
        session_reports.report(site, "nothing")
    with pytest.raises(ConfigWrong, match="no folder"):
        session_reports.export_page(site, "lora-0002", tmp_path / "no" / "a.html")
    with pytest.raises(ConfigWrong, match="in the site's home"):
        session_reports.export_page(site, "lora-0002", site.home.reports / "0007.html")
    (site.home.reports / "0007.html").unlink()
    with pytest.raises(NotFound, match="no page here"):
        session_reports.export_page(site, "lora-0002", tmp_path / "b.html")
    assert not (tmp_path / "b.html").exists()
