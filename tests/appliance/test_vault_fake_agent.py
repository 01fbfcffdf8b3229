"""A job cannot take the key agent's place; if it could, it would not be told; what it was told is sealed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import people_support as site
import pytest
from airgap_support import ROOT, in_child
from vault_support import agent, sealed_home

from appliance.core.home import open_home
from appliance.security.airgap import kernel
from appliance.security.airgap.syscalls import this_machine
from appliance.security.passphrase import Cost
from appliance.security.people import persons
from appliance.security.vault import slots

MACHINE = this_machine()
pytestmark = pytest.mark.skipif(MACHINE is None, reason="no jail on this machine")
FILES = MACHINE is not None and kernel.landlock_version(MACHINE) >= kernel.FILE_RULES
NO_LANDLOCK = "kernel.landlock_version = lambda machine: 0"
SEED = bytes(range(32))

JOB = """
from pathlib import Path
from appliance.core.db import transaction
from appliance.core.home import open_home
from appliance.security.airgap.entering import enter_first
home = open_home(Path({home!r}))
{before}
here = enter_first(home, {kind!r}, {{}})
run, installed = home.path / "run", Path({root!r}) / "appliance"
def bind():
    with socket.socket(socket.AF_UNIX) as link:
        link.bind(str(run / "mine.sock"))
def database():
    with transaction(home) as link:
        link.execute("CREATE TABLE t (x)")
        link.executemany("INSERT INTO t VALUES (?)", [(os.urandom(4000),) for _ in range(500)])
        link.execute("DROP TABLE t")
def temporary():
    import tempfile
    with tempfile.NamedTemporaryFile() as stream:
        stream.write(b"x")
def moved():
    (home.jobs / "a").write_text("x")
    (home.jobs / "a").replace(home.models / "a")
    (home.models / "a").unlink()
def append(path):
    with path.open("a"):
        pass
def spilled():
    import sqlite3
    link = sqlite3.connect(home.documents / "index.db")
    link.execute("PRAGMA cache_size=10")
    link.execute("CREATE TABLE t (x)")
    link.executemany("INSERT INTO t VALUES (?)", [(os.urandom(4000),) for _ in range(500)])
    assert len(list(link.execute("SELECT x FROM t ORDER BY x"))) == 500
names = ("vault.json", "people.json", "airgap.json", "new")
allowed = [database, temporary, moved, lambda: append(Path("/dev/null")), database, spilled]
shut = [
    lambda: (run / "agent.sock").unlink(),
    lambda: (home.jobs / "job.sock").replace(run / "agent.sock"),
    bind,
    lambda: run.rename(home.path / "aside"),
    *(lambda name=name: append(home.path / name) for name in names),
    lambda: append(installed / "planted.py"),
    lambda: append(Path({outside!r})),
    lambda: append(home.path / "keys" / "planted"),
]
(home.jobs / "job.sock").touch()
tell(files=here.files, allowed=[number(each) for each in allowed], shut=[number(each) for each in shut])
"""


def job(tmp_path: Path, kind: str = "import", before: str = "") -> Any:
    """What a process may do that entered the jail as a job of a home does."""
    shutil.rmtree(tmp_path / "home", ignore_errors=True)
    home = open_home(tmp_path / "home")
    (home.path / "run").mkdir()
    for name in ("people.json", "airgap.json"):
        (home.path / name).write_text("{}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home.path / "run" / "agent.sock"))
        words = {"root": str(tmp_path), "outside": str(tmp_path / "outside"), "home": str(home.path)}
        (tmp_path / "appliance").mkdir(exist_ok=True)
        return in_child(JOB.format(kind=kind, before=before, **words))


@pytest.mark.skipif(not FILES, reason="this kernel's Landlock has no rules for files")
def test_a_job_writes_where_it_must_and_nowhere_else(tmp_path: Path) -> None:
    held = job(tmp_path)
    assert held["files"] and held["allowed"] == [0] * 6
    assert set(held["shut"]) == {errno.EACCES}, held["shut"]
    assert not list((tmp_path / "home" / "jobs").glob("*/tmp*"))


def test_without_landlock_a_job_could_and_the_jail_says_so(tmp_path: Path) -> None:
    free = job(tmp_path, before=NO_LANDLOCK)
    assert not free["files"] and free["allowed"] == [0] * 6
    assert free["shut"][0] == 0 and set(free["shut"][4:]) == {0}


@pytest.mark.skipif(not FILES, reason="this kernel's Landlock has no rules for files")
def test_an_endpoint_keeps_its_certificate_and_the_key_of_its_log(tmp_path: Path) -> None:
    assert [job(tmp_path, kind)["shut"][-1] for kind in ("serve", "train")] == [0, errno.EACCES]


FAKE = """
import socket, sys
from appliance.security.airgap.filter import NONE
from appliance.security.airgap.jail import enter
if sys.argv[2] == "job":
    enter(NONE)
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    print("on", flush=True)
    while True:
        link, _ = listener.accept()
        with link:
            print(link.recv(1 << 16).decode().strip(), flush=True)
            try:
                link.sendall(b"{}" + bytes([10]))
            except OSError:
                pass
"""
CLIENT = """
import sys
from pathlib import Path
from appliance.core.home import Home
from appliance.core.sealing import Locked
from appliance.security.vault import unlocking
key = bytes.fromhex(sys.argv[2]) if sys.argv[2] else None
try:
    unlocking.sign_in(Home(path=Path(sys.argv[1])), "mira", bytes(range(32)), master=key)
    print("told")
except Locked:
    print("locked")
"""


def python(code: str, *words: str, path: str = str(ROOT)) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def fake(path: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    child = subprocess.Popen(
        [sys.executable, "-c", FAKE, str(path), kind],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdout.readline() == "on\n"
    try:
        yield child
    finally:
        child.kill()
        child.stdout.read()
        child.stdout.close()
        child.wait()
        path.unlink()


def test_a_fake_agent_does_not_learn_the_seed(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "home")
    path = home.path / "run" / "agent.sock"
    with fake(path, "job") as listener:  # as where the kernel has no Landlock
        assert python(CLIENT, str(home.path), "") == "locked"
        assert python(CLIENT, str(home.path), master.hex()) == "locked"
        listener.kill()
        assert listener.stdout is not None and listener.stdout.read().strip() == ""
    with fake(path, "free") as listener:
        assert listener.stdout is not None
        assert python(CLIENT, str(home.path), master.hex()) == "told"
        heard = listener.stdout.readline()
        assert json.loads(heard)["name"] == "mira" and SEED.hex() not in heard
        assert python(CLIENT, str(home.path), "") == "told"  # the test can see it
        assert SEED.hex() in listener.stdout.readline()


MINE = """
import json, os, sys
from pathlib import Path
from appliance.core.errors import ConfigWrong
from appliance.core.home import Home
from appliance.security.vault import place, unlocking
home, kept = Home(path=Path(sys.argv[1])), {}
real = place.ask
def ask(root, what, **values):
    kept.update(values)
    return real(root, what, **values)
place.ask = ask
unlocking.sign_in(home, "mira", bytes(range(32)), master=bytes.fromhex(sys.argv[2]))
print(json.dumps([kept, unlocking.who(home)]))
"""
REPLAYED = """
import json, sys
from pathlib import Path
from appliance.core.errors import ConfigWrong
from appliance.security.vault import place
root = Path(sys.argv[1])
try:
    place.ask(root, "sign_in", **json.loads(sys.argv[2]))
except ConfigWrong as problem:
    print(problem.message)
print(place.ask(root, "who")["name"] or "nobody")
"""


def test_what_was_sent_signs_nobody_in_elsewhere(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "home")
    with agent(home, master):
        kept, who = json.loads(python(MINE, str(home.path), master.hex()))
        assert who == "mira"
        told = python(REPLAYED, str(home.path), json.dumps(kept)).splitlines()
        assert told == ["The key agent refuses: this cannot be asked.", "nobody"]


DOOR = """
import json, sys
from pathlib import Path
import people_support as site
from appliance.security.people.persons import utc_now
from appliance.security.vault import place, unlocking
from tui import session_vault
from tui.session import Session
told, real = [], place.ask
def ask(root, what, **values):
    told.append([what, values])
    return real(root, what, **values)
place.ask = ask
home = Path(sys.argv[1])
session = Session(home)
session_vault.unlock(session, "olga", site.passphrase("olga"), minutes=10, allow_swap=True)
print(json.dumps([told, unlocking.who(session.home), site.SEEDS["olga"].hex()]))
unlocking.lock(session.home)
"""


def test_who_unlocks_a_site_sends_no_seed(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    slots.create(home, "olga", site.passphrase("olga"))
    people = [site.new(name, role) for name, role in site.ROLE_OF.items()]
    persons.found(home, "St. Anna", people, cost=Cost(), now=site.START)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "appliance")])
    told, who, seed = json.loads(python(DOOR, str(home.path), path=path).splitlines()[-1])
    (sent,) = [values for what, values in told if what == "sign_in"]
    assert who == "olga" and sent["sealed"] is True and seed not in json.dumps(told)
