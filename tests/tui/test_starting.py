"""What is looked at when people begin: the installation, and what a crash has left."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "appliance"))
import supply_support as s

from appliance.core.errors import InstallationAltered
from appliance.core.home import Home
from appliance.ops import jobs
from appliance.security.bundle import importing
from appliance.security.supply import baseline, installed
from appliance.security.trust import rotation
from tui import app, session_people, starting
from tui.session import Session


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("supply")
    return s.make_environment(folder, s.make_wheelhouse(folder / "house"))


@pytest.fixture
def place(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = s.copied(built, tmp_path / "env")
    for module in (baseline, installed):
        monkeypatch.setattr(module, "here", lambda: place)
    return place


def test_init_records_what_is_installed(home: Home, place: Path) -> None:
    session_people.initialise(home, "Anna", [], single=True)
    assert baseline.compare(home, place) == ("same", [])
    assert baseline.record_first(home, who="x") is None, "once"


def test_init_makes_no_site_of_an_altered_installation(home: Home, place: Path) -> None:
    (place / "tinylib.py").write_text("evil\n")
    with pytest.raises(InstallationAltered):
        session_people.initialise(home, "Anna", [], single=True)
    assert not home.people.exists() and not home.identity.exists()


def test_a_source_folder_is_held_to_nothing(home: Home) -> None:
    session_people.initialise(home, "Anna", [], single=True)
    starting.at_start(home, who="joe")
    starting.before_long(home, who="joe")


def test_the_screens_do_not_open_on_an_altered_installation(
    home: Home, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app.Cloister, "run", lambda self: None)
    session_people.initialise(home, "Anna", [], single=True)
    with pytest.raises(SystemExit) as left:
        app.run(home.path)
    assert not left.value.code
    (place / "tinylib.py").write_text("evil\n")  # its RECORD is as it was: only hashing finds it
    with pytest.raises(SystemExit) as left:
        app.run(home.path)
    assert left.value.code == 12 and "tinylib.py is altered" in capsys.readouterr().err


def test_no_job_starts_on_an_altered_installation(
    home: Home, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_spawn", lambda home, job_id: None)
    session_people.initialise(home, "Anna", [], single=True)
    session, spec = Session(home.path, "joe"), {"name": "inbox", "path": "x"}
    session.start_import(spec)
    s.rewrite(place, "tinylib.py", b"evil\n")
    with pytest.raises(InstallationAltered):
        session.start_import(spec)
    assert len(jobs.jobs(home)) == 1


def test_what_was_cut_off_is_cleared_at_the_start(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.Cloister, "run", lambda self: None)
    session_people.initialise(home, "Anna", [], single=True)
    swept: list[Any] = []
    monkeypatch.setattr(importing, "sweep", lambda home: swept.append(home))
    with pytest.raises(SystemExit):
        app.run(home.path)
    assert swept == [], "nothing was left"
    (home.bundles / ".quarantine-1").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(rotation, "finish", lambda home: None)
        made = rotation.rotate(home, who="joe", because="yearly")
    with pytest.raises(SystemExit):
        app.run(home.path)
    assert swept == [home] and rotation.current(home).key == made.key
    monkeypatch.undo()
    starting.clear(home)
    assert not (home.bundles / ".quarantine-1").exists()
