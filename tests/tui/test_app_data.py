"""The data screen: a file is found, its columns are chosen, it is imported, opened and removed, by keys."""

from __future__ import annotations

import shutil
from pathlib import Path

import app_site as a
import pytest
from app_site import lines, screens, shown, until
from textual.pilot import Pilot

from appliance.core.errors import ConfigWrong, DataRejected
from appliance.data.peek import peek
from appliance.models.importing import DEMO_BASE
from appliance.ops import jobs
from tui.app import Cloister
from tui.fields import Field, answers
from tui.screens.frame import Looking
from tui.screens.import_fields import DEMO, EACH, UNSAID, column_fields, demo_spec, spec_from
from tui.screens.job import JobScreen
from tui.screens.modals import ConfirmName
from tui.screens.picker import MOST, PickPath, rows_of, start_of
from tui.session import Session
from tui.steps import NextStep


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looking, "EVERY", 0.3)


def table(folder: Path, name: str = "notes.csv", rows: int = 60) -> Path:
    """Messages of 20 patients, each with one of three queues."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(
        "patient,note,queue,sex\n"
        + "".join(
            f"p{n % 20},message number {n} about {'abc'[n % 3]},q{n % 3},{'fm'[n % 2]}\n" for n in range(rows)
        )
    )
    return path


def finish() -> None:
    """Wait for the jobs that this test started."""
    for child in jobs._children.values():
        child.wait(60)


def test_columns_are_guessed_by_name_and_by_what_stands_in_them(tmp_path: Path) -> None:
    found = peek(table(tmp_path))
    assert found.columns == ("patient", "note", "queue", "sex")
    assert found.guesses == {"text": "note", "label": "queue", "unit": "patient"}
    odd = tmp_path / "odd.jsonl"
    odd.write_text(
        "".join(f'{{"a": "long words number {n}", "b": "k{n % 4}", "c": {n}}}\n' for n in range(40))
    )
    assert peek(odd).guesses == {"text": "a", "label": "b"}
    bare = tmp_path / "bare.csv"
    bare.write_text("Ada Byron came with a headache on Monday,q1\nBen was seen,q2\n")
    with pytest.raises(DataRejected) as problem:
        peek(bare)
    assert "Ada" not in f"{problem.value.message} {problem.value.hint}"


def test_what_is_asked_makes_the_spec_of_the_command_line(tmp_path: Path) -> None:
    path = table(tmp_path)
    first = {"source": "our own", "path": path, "learn": "a label", "name": None}
    seen = peek(path)
    fields = column_fields(seen, "label")
    given = answers(fields, {"facts": "sex, ", "labels": "q0, q1"})
    assert spec_from(first, given, seen.columns) == {
        "path": str(path),
        "demo": False,
        "name": "notes",
        "columns": {"text": "note", "label": "queue", "unit": "patient", "facts": ["sex"]},
        "unit_is_record": False,
        "seed": 0,
        "labels": ["q0", "q1"],
    }
    assert spec_from(first, {**given, "unit": EACH}, seen.columns)["unit_is_record"] is True
    unsaid = spec_from(first, {**given, "unit": UNSAID, "unit_name": "person"}, seen.columns)
    assert "unit" not in unsaid["columns"] and not unsaid["unit_is_record"] and "unit_name" not in unsaid
    with pytest.raises(ConfigWrong, match="there is no column age"):
        spec_from(first, {**given, "facts": "sex, age"}, seen.columns)
    assert demo_spec({"source": DEMO, "name": None, "path": None})["demo"] is True
    texts = {field.key for field in column_fields(peek(path), "text")}
    assert "text" in texts and not texts & {"label", "labels", "prompt_form"}


def test_a_field_is_asked_only_while_another_says_so() -> None:
    fields = (
        Field(key="kind", title="Kind", help="", kind="choice", choices=("own", "demo"), default="own"),
        Field(key="path", title="Path", help="", kind="path", needed=True, when=("kind", "own")),
    )
    assert answers(fields, {"kind": "demo", "path": "x"}) == {"kind": "demo", "path": None}
    with pytest.raises(Exception, match="Path is missing"):
        answers(fields, {"kind": "own"})


def test_a_folder_is_listed_folders_first_without_what_is_hidden(tmp_path: Path) -> None:
    table(tmp_path / "b", "Zed.csv")
    (tmp_path / "b" / ".hidden").write_text("x")
    (tmp_path / "b" / "inner").mkdir()
    rows, note = rows_of(tmp_path / "b")
    assert [row.name for row in rows] == ["(take this folder)", "..", "inner/", "Zed.csv"] and note == ""
    assert rows_of(tmp_path / "none")[1].startswith("This folder cannot be read")
    assert start_of(str(tmp_path / "b" / "Zed.csv")) == tmp_path / "b" and start_of("") == Path.cwd()
    many = tmp_path / "many"
    many.mkdir()
    for number in range(MOST + 1):
        (many / f"{number}.csv").touch()
    rows, note = rows_of(many)
    assert len(rows) == MOST + 2 and "Only 2,000" in note


def test_records_are_imported_with_enter_and_arrows_opened_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(tmp_path / "records" / "2026")
    (tmp_path / "records" / "old").mkdir()
    monkeypatch.chdir(tmp_path / "records")
    site = a.session(tmp_path / "home")

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("2")
        await until(pilot, lambda: "Press i to import" in shown(app), "not empty")
        await pilot.press("i")
        await until(pilot, lambda: "File or folder" in shown(app), "no form")
        await pilot.press("right")
        await until(pilot, lambda: "File or folder" not in shown(app), "a file is asked for made-up records")
        await pilot.press("left", "down", "enter")
        await until(pilot, lambda: isinstance(app.screen, PickPath) and "2026/" in shown(app), "no picker")
        assert all(len(line) == 80 for line in lines(app)) and str(tmp_path / "records")[:30] in shown(app)
        await pilot.press("enter")
        await until(pilot, lambda: "notes.csv" in shown(app), "not in the folder")
        await pilot.press("left")
        await until(pilot, lambda: "old/" in shown(app), "not out of it")
        await pilot.press("right")
        await until(pilot, lambda: "notes.csv" in shown(app), "not on the folder it came from")
        await pilot.press("enter")
        await until(pilot, lambda: "The model learns" in shown(app), "not back in the form")
        assert Path(app.screen.query_one("#field-path").value).name == "notes.csv"  # type: ignore[attr-defined]
        await pilot.press("down", "down", "down", "down", "enter")
        await until(pilot, lambda: "Columns of notes.csv" in shown(app), "no columns")
        text = shown(app)
        for words in ("< note >", "< queue >", "< patient >", "Its columns: patient, note, queue, sex"):
            assert words in text, words
        await pilot.press("escape")
        await until(pilot, lambda: "File or folder" in shown(app), "what was typed is gone")
        assert app.screen.query_one("#field-path").value.endswith("notes.csv")  # type: ignore[attr-defined]
        await pilot.press("up", "enter")
        await until(pilot, lambda: "Columns of notes.csv" in shown(app), "no columns again")
        await pilot.press("up", "enter")
        await until(pilot, lambda: "dataset notes@1" in shown(app), "not imported")
        await until(pilot, lambda: "Done" in shown(app), "no end")
        await pilot.press("escape")
        await until(pilot, lambda: "of 20 patients, 12 of them" in shown(app), "not in the list")
        await pilot.press("enter")
        await until(pilot, lambda: "[x] read    60 records" in shown(app), "not open")
        text = shown(app)
        for words in (
            "[x] clean   0 left out",
            "of each patient",
            "q0",
            "No model has learnt",
            "dataset notes@1",
        ):
            assert words in text, words
        assert all(len(line) == 80 for line in lines(app)) and len(lines(app)) == 24
        await pilot.press("d")
        await until(pilot, lambda: "type notes@1 to go on" in shown(app), "not asked")
        assert isinstance(app.screen, ConfirmName) and "Lost for good" in shown(app)
        app.screen.query_one("#name").focus()
        await pilot.press(*"notes@1", "enter", "tab", "enter")
        await until(pilot, lambda: "No data yet." in shown(app), "still there")

    screens(site, act)
    finish()
    assert site.datasets() == []


def test_what_cannot_be_read_brings_the_form_back_with_what_was_typed(tmp_path: Path) -> None:
    (tmp_path / "scan.pdf").write_bytes(b"%PDF")

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await pilot.press("2", "i")
        await until(pilot, lambda: "File or folder" in shown(app), "no form")
        await pilot.press("down", *str(tmp_path / "scan.pdf"), "down", "down", "down", "down", "enter")
        await until(pilot, lambda: "not of a format that can be read" in shown(app), "not told")
        assert app.screen.query_one("#field-path").value.endswith("scan.pdf")  # type: ignore[attr-defined]
        app.screen.query_one("#field-name").value = "no good"  # type: ignore[attr-defined]
        await pilot.press("up", "enter")
        await until(pilot, lambda: "name has 1 to 64 letters" in shown(app), "a bad name passes")

    screens(Session(tmp_path / "home", who="mira"), act)


def test_a_base_of_our_own_is_brought_in_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tui.screens.site.next_step",
        lambda *found, **facts: NextStep(
            text="Import a GGUF file.", why="", command="cloister model import FILE.gguf --name NAME"
        ),
    )
    shutil.copytree(DEMO_BASE, tmp_path / "clinic")
    site = a.session(tmp_path / "home")

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Import a GGUF file." in shown(app), "no next step")
        await pilot.press("enter")
        await until(pilot, lambda: "< our own >" in shown(app), "no form")
        await pilot.press("down", *str(tmp_path / "nowhere"), "up", "up", "enter")
        await until(pilot, lambda: "There is nothing at" in shown(app), "not refused")
        app.screen.query_one("#field-path").value = str(tmp_path / "clinic")  # type: ignore[attr-defined]
        await pilot.press("enter")
        await until(pilot, lambda: "clinic is in." in shown(app), "not taken", 60)

    screens(site, act)
    assert [(model.name, model.kind) for model in site.models()] == [("clinic", "base")]


def test_a_gate_that_failed_is_read_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = NextStep(text="It did not pass.", why="", command="cloister model card lora-0002")
    monkeypatch.setattr("tui.screens.site.next_step", lambda *found, **facts: step)

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "It did not pass." in shown(app), "no next step")
        await pilot.press("enter")
        await until(pilot, lambda: "No report on lora-0002" in shown(app), "nothing happens")

    screens(a.session(tmp_path), act)


def test_what_comes_next_is_seen_above_a_long_result(tmp_path: Path) -> None:
    site = a.session(tmp_path)
    a.models(site.home)
    folder = a.job(site.home, "evaluate", "evaluate lora-0002")
    a.tell(folder, "started", kind="evaluate")
    rows = [{"name": f"lora-0002-{number}", "accuracy": 0.5} for number in range(12)]
    a.tell(folder, "done", result={"models": rows, "gates": []})

    async def act(app: Cloister, pilot: Pilot[None]) -> None:
        await app.push_screen(JobScreen("0001"))
        await until(pilot, lambda: "[Enter: import]" in shown(app), "what comes next is cut off")
        assert "lora-0002-0" in shown(app)

    screens(site, act)
