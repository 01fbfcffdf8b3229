"""What people are told when the database's disk is full, locked or not to be used."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.core import db
from appliance.core.db import connect, reading, transaction
from appliance.core.errors import ApplianceError, Busy, ConfigWrong, NoRoom
from appliance.core.events import append_event
from appliance.core.files import write_bytes
from appliance.core.home import Home
from appliance.security import audit

# Runs in a mount namespace of its own: a full disk, then what each door says.
FULL = """
import os, sys
from pathlib import Path
from appliance.core.db import reading, transaction
from appliance.core.errors import NoRoom
from appliance.core.files import write_bytes
from appliance.core.events import append_event
from appliance.core.home import open_home
from appliance.security import audit, keys

home = open_home(Path(sys.argv[1]) / "home")
with transaction(home) as link:
    audit.record(link, who="m", what="test", target="before")
if sys.argv[2] == "crashed":  # what was written last is still in the log file
    if os.fork() == 0:
        with transaction(home) as link:
            audit.record(link, who="m", what="test", target="late")
            link.execute("COMMIT")
            os._exit(0)
    os.wait()

def fill():
    try:
        with open(home.path / "filler", "ab", buffering=0) as stream:
            while stream.write(bytes(4096)):
                pass
    except OSError:
        pass

fill()
with reading(home) as link:
    seen = [entry["target"] for entry in audit.tail(link, 9)]
assert sorted(seen) == (["before", "late"] if sys.argv[2] == "crashed" else ["before"]), seen
assert keys.list_keys(home) == []
for write in (
    lambda: keys.new_key(home, "dms", "m"),
    lambda: write_bytes(home.path / "new", bytes(9000)),
    lambda: append_event(home.path / "events.jsonl", "log", text="x" * 9000),
):
    fill()  # reading may have brought the log file home, which gives room
    try:
        write()
    except NoRoom as problem:
        assert "no space" in problem.message and problem.hint, problem.message
    else:
        raise AssertionError("it was written")
assert not (home.path / "new").exists()
(home.path / "filler").unlink()
with transaction(home) as link:
    audit.record(link, who="m", what="test", target="after")
with reading(home) as link:
    assert {"before", "after"} <= {entry["target"] for entry in audit.tail(link, 9)}
print("held")
"""


@pytest.mark.parametrize("before", ["closed", "crashed"])
def test_a_full_disk_can_be_read_and_says_so_when_written(tmp_path: Path, before: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o size=2m none "$1" && shift && exec "$@"',
        "sh",
    ]
    try:
        subprocess.run([*mount, str(disk), "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk can be mounted here")
    done = subprocess.run(
        [*mount, str(disk), sys.executable, "-c", FULL, str(disk), before], capture_output=True, text=True
    )
    assert done.stdout == "held\n", done.stderr


def fill(home: Home) -> None:
    with transaction(home) as link:
        link.execute(f"PRAGMA max_page_count={link.execute('PRAGMA page_count').fetchone()[0]}")
        for number in range(1000):
            audit.record(link, who="m", what="test", target=str(number))


def test_a_database_that_cannot_grow_changes_nothing(home: Home) -> None:
    with pytest.raises(NoRoom, match="no space") as caught:
        fill(home)
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError) and caught.value.hint
    with reading(home) as link:
        assert audit.tail(link, 9) == []


def test_a_locked_database_is_busy(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(home).close()
    plain = sqlite3.connect
    monkeypatch.setattr(db.sqlite3, "connect", lambda path, timeout, **rest: plain(path, timeout=0.1, **rest))
    with transaction(home), pytest.raises(Busy, match="in use") as caught, transaction(home):
        pass
    assert caught.value.hint


def test_a_file_that_is_no_database_is_said_to_be_damaged(home: Home) -> None:
    home.database.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(ApplianceError, match="damaged"):
        connect(home)


def test_a_database_that_may_not_be_opened(home: Home) -> None:
    home.database.mkdir()
    with pytest.raises(ConfigWrong, match="cannot be opened"), reading(home):
        pass


def test_a_wrong_statement_stays_an_error_of_the_program(home: Home) -> None:
    with pytest.raises(sqlite3.OperationalError), reading(home) as link:
        link.execute("SELECT * FROM nothing")


def test_no_space_while_a_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoRoom):
        write_bytes(tmp_path / "new", b"x")
    assert list(tmp_path.glob("*new*")) == []
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(NoRoom):
        append_event(tmp_path / "events.jsonl", "log")
