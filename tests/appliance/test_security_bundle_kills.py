"""SIGKILL at every durable operation of export and import: nothing lost, nothing half visible."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import bundle_kills as k
import bundle_support as b
import pytest
from vault_support import sealed_home, unlocked

from appliance.core.db import reading
from appliance.core.home import Home, open_home
from appliance.core.reading import read_bytes
from appliance.core.vaulted import MAGIC
from appliance.security import audit
from appliance.security.bundle import importing
from appliance.security.bundle.reading import verify

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


def fork(what: str, home: Home, file: Path, at: int, said: Path = Path(os.devnull)) -> int:
    """Run it in a child that has everything imported; the signal it died of, or 0."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            sys.stdout = said.open("w")
            k.main(what, str(home.path), str(file), at)
            sys.stdout.flush()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0
    return 0


def check_sent(home: Home, file: Path, sent: set[int]) -> None:
    """A file is whole and on record or not there, and no number was given twice."""
    with reading(home) as link:
        lines = [one for one in audit.tail(link, 10_000) if one["what"] == "bundle.export.begin"]
        rows = {row["seq"] for row in link.execute("SELECT seq FROM bundles_out")}
    assert {one["seq"] for one in lines} == rows
    if file.exists():
        opened = verify(file, b.EDGE, b.trust())
        assert opened.manifest.seq in rows and opened.manifest.seq not in sent
        sent.add(opened.manifest.seq)
        file.unlink()


def check_brought(home: Home) -> str:
    """After start-up: the bundle is in, with its floor and audit line, or nothing of it is."""
    importing.sweep(home)
    left = {one.name for one in home.bundles.iterdir() if not one.name.startswith(".lock")}
    with reading(home) as link:
        rows = [tuple(row) for row in link.execute("SELECT digest, state, entered FROM bundles_in")]
        lines = [one["target"] for one in audit.tail(link, 10_000) if one["what"] == "bundle.import"]
        floors = [row["seq"] for row in link.execute("SELECT seq FROM trust_floors")]
    assert left == {row[0] for row in rows} and all(row[1] == "live" for row in rows)
    assert lines == [row[0] for row in rows] and len(floors) == len(rows) <= 1
    if rows:
        folder = home.bundles / rows[0][0]
        assert read_bytes(folder / "model.gguf") == k.BIG
        assert read_bytes(folder / "LICENSE") == b"licence"
        assert len(read_bytes(folder / importing.SIGNED)) > 500
    return "nothing" if not rows else "entered" if rows[0][2] else "live"


def points(what: str, home: Home, file: Path) -> int:
    """How many moments there are to die at: before and after each durable operation."""
    command = [sys.executable, k.__file__, what, str(home.path), str(file), "0"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return 2 * int(done.stdout)


def test_export_dies_anywhere(home: Home, tmp_path: Path) -> None:
    file, sent = tmp_path / "stick" / "x.clb", set[int]()
    file.parent.mkdir()
    moments = points("export", home, file)
    check_sent(home, file, sent)
    assert moments >= 8
    for at in range(1, moments + 1):
        assert fork("export", home, file, at) == signal.SIGKILL
        check_sent(home, file, sent)
    assert fork("export", home, file, 0) == 0 and file.exists()
    check_sent(home, file, sent)
    assert list(file.parent.iterdir()) == [], "the drafts of killed exports are gone"


def test_import_dies_anywhere(tmp_path: Path) -> None:
    file = tmp_path / "x.clb"
    b.bundle(file, k.request().sources)
    b.pinned(open_home(tmp_path / "template"))
    shutil.copytree(tmp_path / "template", tmp_path / "whole")
    moments, seen = points("import", open_home(tmp_path / "whole"), file), set()
    assert moments >= 20
    for at in range(1, moments + 1):
        shutil.copytree(tmp_path / "template", tmp_path / f"home{at}")
        home = open_home(tmp_path / f"home{at}")
        assert fork("import", home, file, at) == signal.SIGKILL
        seen.add(state := check_brought(home))
        if state != "entered":
            assert fork("import", home, file, 0) == 0, "it goes on by itself"
        assert check_brought(home) == "entered"
    assert seen == {"nothing", "live", "entered"}


def test_import_into_a_sealed_home_dies_anywhere(tmp_path: Path) -> None:
    """And at no moment is a byte of it plain on the disk."""
    file = tmp_path / "x.clb"
    b.bundle(file, k.request().sources)
    template, master = sealed_home(tmp_path / "template")
    b.pinned(template)

    def copied(name: str) -> Home:
        shutil.copytree(template.path, tmp_path / name)
        return open_home(tmp_path / name)

    with unlocked(whole := copied("whole"), master):
        assert fork("import", whole, file, 0, tmp_path / "count") == 0
    moments, seen = 2 * int((tmp_path / "count").read_text()), set()
    assert moments >= 20
    for at in range(1, moments + 1):
        with unlocked(home := copied(f"home{at}"), master):
            assert fork("import", home, file, at) == signal.SIGKILL
            check_sealed(home)
            seen.add(state := check_brought(home))
            if state != "entered":
                assert fork("import", home, file, 0) == 0, "it goes on by itself"
            assert check_brought(home) == "entered"
            check_sealed(home)
    assert seen == {"nothing", "live", "entered"}


def check_sealed(home: Home) -> None:
    """What is there is sealed, or the zeros that a sealed file begins as, with chunks after them."""
    for one in home.bundles.rglob("*"):
        if one.is_file() and one.name != ".lock":
            content = one.read_bytes()
            assert content[: len(MAGIC)] in (MAGIC, b"", bytes(len(MAGIC))), one
            assert not any(part in content for part in (k.BIG[:64], k.BIG[5000:5064], b"licence", b"sha256"))


@pytest.mark.soak
def test_kills_at_random_times(tmp_path: Path) -> None:
    """1,000 kills, half of them in exports, at any moment."""
    chance, kills, number = random.Random(5), 0, 0
    stick, sent = tmp_path / "x.clb", set[int]()
    centre, edge = open_home(tmp_path / "centre"), open_home(tmp_path / "edge")
    b.bundle(tmp_path / "in.clb", k.request().sources)
    b.pinned(edge)
    while kills < 1000:
        number += 1
        if number % 50 == 0 or check_brought(edge) == "entered":
            edge = open_home(tmp_path / f"edge{number}")
            b.pinned(edge)
        what = "export" if number % 2 else "import"
        home, file = (centre, stick) if what == "export" else (edge, tmp_path / "in.clb")
        pid = os.fork()
        if not pid:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            k.main(what, str(home.path), str(file), 0)
            os._exit(0)
        time.sleep(chance.random() * 0.12)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        kills += os.WIFSIGNALED(status)
        check_sent(centre, stick, sent)
        check_brought(edge)
