"""Indexing killed with SIGKILL: the old index answers as before, and the job goes on where it was."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import documents_support as d
import pytest

from appliance.core.home import Home
from appliance.serve.documents import child, collections
from appliance.serve.documents.retrieve import retrieve


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return d.policies(tmp_path / "documents")


def best(home: Home, question: str) -> str:
    found = retrieve(home, ["policies"], question)
    return found[0].text if found else ""


KILLED = """
import os, signal, sys
from pathlib import Path
import documents_support as d
from appliance.core.home import open_home
from appliance.serve.documents import index
put, left = index.put, [int(sys.argv[3])]
def dying(*parts, **rest):
    put(*parts, **rest)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
index.put = dying
d.add(open_home(Path(sys.argv[1])), Path(sys.argv[2]), job="0002")
"""


@pytest.mark.parametrize("after", [1, 3])
def test_a_kill_leaves_the_old_index_and_the_job_goes_on(
    home: Home, place: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    d.add(home, place)
    before = collections.index_path(home, "policies").read_bytes()
    (place / "leave.txt").write_text("Staff now have 33 days of leave.")
    (place / "dose.pdf").unlink()
    d.folder(place, {f"new{n}.txt": f"Rule number {n} of the canteen." for n in range(3)})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", KILLED, str(home.path), str(place), str(after)]
    died = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert collections.index_path(home, "policies").read_bytes() == before
    assert best(home, "leave") == d.LEAVE and best(home, "paracetamol") == d.DOSE
    read: list[str] = []
    reader = child.Reader.read

    def watched(self: child.Reader, handle: int, kind: str):
        read.append(kind)
        return reader(self, handle, kind)

    monkeypatch.setattr(child.Reader, "read", watched)
    done = d.add(home, place, job="0002")
    assert len(read) == 5 - after, "what was kept before the kill is not read again"
    assert (done.added, done.changed, done.removed, done.same) == (3, 1, 1, 1)
    assert best(home, "leave").startswith("Staff now") and not best(home, "paracetamol")
    assert b"every six hours" not in collections.index_path(home, "policies").read_bytes()


@pytest.mark.soak
def test_kills_at_any_moment(home: Home, tmp_path: Path) -> None:
    """SIGKILL 40 times while one job indexes 60 files; the published index always answers."""
    place = d.policies(tmp_path / "documents")
    d.add(home, place)
    d.folder(place, {f"n{n}.txt": f"Rule {n}. " + d.VISITS * 20 for n in range(60)})
    (place / "leave.txt").write_text("Staff now have 33 days of leave.")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    kills = 0
    for attempt in range(400):
        command = [sys.executable, "-c", KILLED, str(home.path), str(place), "-1"]
        running = subprocess.Popen(command, env=environment)
        try:
            running.wait(0.4 + 0.02 * (attempt % 40))
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
            kills += 1
        with sqlite3.connect(collections.index_path(home, "policies")) as link:
            assert link.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        link.close()
        assert best(home, "days of leave") in (d.LEAVE, "Staff now have 33 days of leave.")
        if running.returncode == 0:
            (place / "leave.txt").write_text(d.LEAVE if attempt % 2 else "Staff now have 33 days of leave.")
            d.folder(place, {f"n{n}.txt": f"Rule {n} {attempt}. " + d.VISITS * 20 for n in range(60)})
        if kills >= 40:
            break
    assert kills >= 40
