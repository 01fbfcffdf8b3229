"""The home is private to its owner, also when it was there before."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.core.home import open_home
from appliance.ops import jobs


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_home_that_was_open_is_made_private(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    assert mode(open_home(folder).path) == 0o700


def test_a_folder_shared_by_all_stays_so(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    assert mode(open_home(folder).path) == 0o1777


def test_what_the_command_writes_is_private(tmp_path: Path) -> None:
    words = ["--home", str(tmp_path / "home"), "key", "new", "--for", "desk"]
    command = [sys.executable, "-m", "tui.launch", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert mode(tmp_path / "home" / "cloister.db") == 0o600


def test_what_a_job_writes_is_private(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    rows = "".join(f"message {n},topic{n % 3},p{n % 40}\n" for n in range(400))
    (tmp_path / "inbox.csv").write_text("text,label,patient\n" + rows)
    spec = {
        "path": str(tmp_path / "inbox.csv"),
        "demo": False,
        "name": "inbox",
        "columns": {"text": "text", "label": "label", "unit": "patient"},
        "unit_is_record": False,
        "seed": 0,
    }
    job = jobs.wait(home, jobs.start(home, "import", spec, title="t", who="m"), 60)
    assert job.state == "done"
    assert mode(job.folder / "result.json") == 0o600
