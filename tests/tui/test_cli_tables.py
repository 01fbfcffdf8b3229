"""What the commands print fits 80 columns, however long the names are, and no figure is lost."""

from __future__ import annotations

import json
from typing import Any

import app_site as a
import pytest

from appliance.core.db import transaction
from appliance.core.home import Home
from appliance.models import registry
from tui.cli.entry import run
from tui.cli.face import Face
from tui.cli.tables import table_lines, wrapped
from tui.cli.train import say_report

LONG = "a-name-of-forty-characters-for-a-model-x"


@pytest.fixture(autouse=True)
def eighty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert run(list(words)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 80, lines
    return lines


def test_a_table_leaves_out_what_can_be_spared_and_says_so() -> None:
    rows = [("a" * 10, "b" * 10, "c" * 10)]
    assert len(table_lines(("x", "y", "z"), rows, spare=("z",), width=34)) == 3
    told = table_lines(("x", "y", "z"), rows, spare=("z",), width=30)
    assert told[2] == "a" * 10 + "  " + "b" * 10 and told[3] == "left out to fit: z (--json has"
    assert max(map(len, told)) <= 30


def test_a_long_name_stands_over_its_figures() -> None:
    rows = [(LONG, "0.912", "PASS"), ("short", "0.1", "FAIL")]
    told = table_lines(("model", "accuracy", "gate"), rows, width=45)
    assert told[0] == "model" and told[2] == "-" * 45
    assert told[3:6] == [LONG, "  0.912     PASS", "short"]


@pytest.mark.parametrize("width", [20, 40, 79])
def test_a_table_that_does_not_fit_takes_more_lines_and_keeps_every_cell(width: int) -> None:
    cells = [LONG, "0.912", "0.880-0.940", "PASS", "x" * 30, "y" * 100]
    lines = table_lines([f"column {n}" for n in range(6)], [cells, cells], width=width)
    assert max(map(len, lines)) <= width
    together = "".join("".join(lines).split())
    assert all(together.count(cell) == 2 for cell in cells[1:4])
    if width > 42:
        assert sum(line == LONG or line.startswith(LONG + "  ") for line in lines) == 2, "a name was cut"


def test_a_wrapped_line_keeps_paths_and_names_whole() -> None:
    path = "/srv/" + "x" * 90
    assert path in wrapped(f"report: {path}", "  ", "    ")[-1]


def report(**more: Any) -> dict[str, Any]:
    row = {
        "name": LONG,
        "accuracy": 0.912,
        "ci": [0.88, 0.94],
        "free_accuracy": 0.9,
        "macro_f1": 0.9,
        "perplexity": 1234.5,
        "size": 397e6,
        "tokens_per_second": 41_200.0,
    }
    clause = {"name": "accuracy", "need": "+15% accuracy relative to the base (low end)", "passed": True}
    gate = {"model": LONG, "passed": False, "clauses": [clause | {"got": "+123.4% (low +100.1%)"}]}
    data = {"rows": 60, "rows_in_split": 637, "split": "test"}
    return {"models": [row, row], "gates": [gate | more], "html": "/r/1.html", "dataset": data, **more}


def test_an_evaluation_fits_and_a_quick_look_is_called_one(capsys: pytest.CaptureFixture[str]) -> None:
    say_report(Face(None, False), report())
    whole = capsys.readouterr().out
    assert f"gate FAIL  {LONG}" in whole and "41,200" in whole and "0.880-0.940" in whole
    say_report(Face(None, False), report(partial=True))
    told = capsys.readouterr().out
    assert f"gate partial  {LONG}" in told and "60 of the 637 records of the test" in told
    assert "FAIL" not in told
    assert max(map(len, (whole + told).splitlines())) < 80


def entered(home: Home, name: str, parent: str | None) -> None:
    facts = {"type": "Q4_K_M", "privacy": {"epsilon": 7.99}}
    made = registry.Model(
        name=name,
        kind="adapter",
        path=home.models / name,
        sha256="0" * 64,
        size=123_456_789,
        parent=parent,
        dataset=f"{LONG}@1",
        facts=facts,
    )
    registry.add(home, made, who="mira")


def judged(home: Home, model: str, job: str, *, passed: bool, partial: bool) -> None:
    with transaction(home) as link:
        link.execute(
            "INSERT INTO reports (model, dataset, created, job, passed, path, partial)"
            " VALUES (?, 'd@1', ?, ?, ?, '/r/x.html', ?)",
            (model, job, job, int(passed), int(partial)),
        )


def test_the_model_list_fits_and_a_quick_look_replaces_no_verdict(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    entered(home, LONG, None)
    entered(home, "short", LONG)
    judged(home, LONG, "0001", passed=True, partial=False)
    judged(home, LONG, "0002", passed=False, partial=True)
    judged(home, "short", "0003", passed=False, partial=True)
    lines = printed(capsys, "model", "list")
    assert any(line.startswith(LONG) and " PASS " in line for line in lines)
    assert any(line.startswith("short") and " partial " in line for line in lines)
    assert lines[-1].startswith("left out to fit:")
    assert run(["model", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    assert [(row["gate"], row["parent"]) for row in rows] == [("PASS", None), ("partial", LONG)]
    assert "gate partial" in "\n".join(printed(capsys, "model", "card", "short"))


def test_the_job_list_fits_and_says_how_to_go_on_with_what_died(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    a.tell(a.job(home, "quantize", f"quantise {LONG}"), "started", kind="quantize")
    lines = printed(capsys, "job", "list")
    assert f"0001  quantise {LONG}" in lines[2] and "died" in lines[2]
    assert lines[-1] == "0001 died. Go on with: cloister job resume 0001"
