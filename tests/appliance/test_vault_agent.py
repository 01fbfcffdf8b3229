"""The key agent: what it gives to whom, and that its end is the lock."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from vault_support import WORDS, agent, keys_of, sealed_home

from appliance.core import files, reading, sealing
from appliance.core.errors import ConfigWrong
from appliance.core.home import open_home
from appliance.core.sealing import Locked
from appliance.security import canonical
from appliance.security.vault import mounted, opened, place, slots, tries, unlocking
from appliance.security.vault.slots import PassphraseWrong


def test_unlock_read_lock(tmp_path: Path) -> None:
    home, _ = sealed_home(tmp_path / "home")
    file = home.feedback / "a.json"
    with pytest.raises(Locked):
        files.write_bytes(file, b"words")
    assert list(home.feedback.iterdir()) == []
    with pytest.raises(PassphraseWrong):
        unlocking.unlock(home, "mira", "not the words of hers", allow_swap=True)
    assert not place.running(home.path)
    unlocking.unlock(home, "mira", WORDS, allow_swap=True)
    try:
        files.write_bytes(file, b"words")
        assert reading.read_bytes(file) == b"words"
        assert b"words" not in file.read_bytes()
        assert unlocking.status(home)["locked"] is False
        assert (place.socket_path(home.path).stat().st_mode & 0o777) == 0o600
    finally:
        assert unlocking.lock(home) is True
    assert unlocking.lock(home) is False
    with pytest.raises(Locked):
        reading.read_bytes(file)
    assert unlocking.status(home)["locked"] is True


def test_the_agent_gives_store_keys_and_never_the_master(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "home")
    with agent(home, master):
        told = place.ask(home.path, "keys")
        assert master.hex() not in str(told)
        for what in ("master", "signing", "keys2", ""):
            with pytest.raises(ConfigWrong):
                place.ask(home.path, what)


def test_its_memory_cannot_be_read_by_the_account(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "home")
    with agent(home, master):
        pid = unlocking._agents[-1].pid
        if os.geteuid() != 0:
            with pytest.raises(PermissionError):
                Path(f"/proc/{pid}/mem").open("rb")  # noqa: SIM115
        line = next(x for x in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file" in x)
        assert line.split()[4:6] == ["0", "0"]
    code = (
        "import ctypes, resource; from appliance.security.vault.agent import protect\n"
        "libc = ctypes.CDLL(None); before = libc.prctl(3, 0, 0, 0, 0)  # PR_GET_DUMPABLE\n"
        "protect(); print(before, libc.prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["1", "0", "0", "0"]


def test_it_locks_after_the_idle_time_and_jobs_do_not_count(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "home")
    with agent(home, master, minutes=1.5 / 60):
        begun = time.monotonic()
        while place.running(home.path):
            place.ask(home.path, "keys", person=False)
            assert time.monotonic() - begun < 8
            time.sleep(0.1)
    with agent(home, master, minutes=1.5 / 60):
        begun = time.monotonic()
        while time.monotonic() - begun < 3:
            unlocking.touch(home)
            time.sleep(0.2)
        assert place.running(home.path)


def test_killed_means_locked(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "home")
    with agent(home, master):
        files.write_bytes(home.feedback / "a", b"x")
        unlocking._agents[-1].kill()
        unlocking._agents[-1].wait()
        mounted.forget(home.path)
        with pytest.raises(Locked):
            reading.read_bytes(home.feedback / "a")
    with agent(home, master):  # the socket that it left is in nobody's way
        assert reading.read_bytes(home.feedback / "a") == b"x"


def test_a_face_notices_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, master = sealed_home(tmp_path / "home")
    with agent(home, master):
        files.write_bytes(home.feedback / "a", b"x")
        place.ask(home.path, "lock")
        while place.running(home.path):
            time.sleep(0.02)
        monkeypatch.setattr(mounted, "_AGAIN", 0.0)
        with pytest.raises(Locked):
            reading.read_bytes(home.feedback / "a")


IMPORTS = """
import json, os, subprocess, sys, time
from pathlib import Path
from appliance.core.home import Home
from appliance.security.vault import unlocking
home = Home(path=Path(sys.argv[1]))

def tried(act):
    try: return act()
    except Exception as problem: return type(problem).__name__
"""
TELLS = (
    IMPORTS
    + """
print(json.dumps([unlocking.who(home), tried(lambda: unlocking.sign(home, b"payload")[0])]))
"""
)
SIGNS_IN = (
    IMPORTS
    + """
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
seed = bytes(range(32))
unlocking.sign_in(home, "mira", seed)
name, signature = unlocking.sign(home, b"payload")
Ed25519PrivateKey.from_private_bytes(seed).public_key().verify(signature, b"payload")
tells = [sys.executable, "-c", sys.argv[2], sys.argv[1]]
for elsewhere in (False, True):
    print(subprocess.check_output(tells, start_new_session=elsewhere, text=True))
unlocking.sign_out(home)
print(subprocess.check_output(tells, text=True))
"""
)
LEAVES_ONE_BEHIND = (
    IMPORTS
    + """
subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]])
"""
)
LEFT_BEHIND = (
    IMPORTS
    + """
leader = Path(f"/proc/{os.getsid(0)}/stat")
while leader.exists() and ") Z" not in leader.read_text():
    time.sleep(0.02)
print(json.dumps([tried(lambda: unlocking.sign_in(home, "mira", bytes(32))), unlocking.who(home)]))
"""
)


def _in_a_session_of_its_own(code: str, home: Path, then: str) -> list[object]:
    """What `code`, and what it starts, says line by line."""
    command = [sys.executable, "-c", code, str(home), then]
    said = subprocess.check_output(command, start_new_session=True, text=True, timeout=60)
    return [json.loads(line) for line in said.split("\n") if line]


def test_a_person_signs_in_the_agent_on_their_terminal_only(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "home")
    with agent(home, master):
        told = _in_a_session_of_its_own(SIGNS_IN, home.path, TELLS)
    assert told == [["mira", "mira"], [None, "ConfigWrong"], [None, "ConfigWrong"]]


def test_nobody_signs_in_where_the_session_has_no_leader(tmp_path: Path) -> None:
    """After a shell that has ended, or from outside a container: others would share that place."""
    home, master = sealed_home(tmp_path / "home")
    with agent(home, master):
        told = _in_a_session_of_its_own(LEAVES_ONE_BEHIND, home.path, LEFT_BEHIND)
    assert told == [["ConfigWrong", None]]


def test_another_account_is_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from appliance.security.vault import agent as agents

    home, master = sealed_home(tmp_path / "home")
    held = agents.Held(home=home, master=master, keys=keys_of(home, master), minutes=1)
    for uid, answered in ((os.getuid(), True), (os.getuid() + 1, False)):
        ours, theirs = socket.socketpair()
        ours.sendall(canonical.encode({"do": "keys"}) + b"\n")
        monkeypatch.setattr(agents.os, "getuid", lambda uid=uid: uid)
        agents._talk(held, theirs)
        monkeypatch.undo()
        theirs.close()
        try:
            told = ours.recv(10)
        except ConnectionResetError:  # closed without reading what was asked
            told = b""
        assert bool(told) is answered
        ours.close()


def test_what_is_no_request_does_not_end_it(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "home")
    with agent(home, master):
        for content in (b"", b"\n", b"{}\n", b'{"do":"sign","payload":5}\n', b"\xff\n", b"[" * 5000 + b"\n"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
                link.connect(str(place.socket_path(home.path)))
                link.sendall(content)
                link.shutdown(socket.SHUT_WR)
                link.settimeout(5)
                link.recv(100)
        assert place.running(home.path)


def test_a_long_path_of_the_home_has_a_socket_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "r"))
    (tmp_path / "r").mkdir(mode=0o700)
    home, master = sealed_home(tmp_path / ("long" * 25))
    with agent(home, master):
        assert place.running(home.path)
        assert place.socket_path(home.path).is_relative_to(tmp_path / "r")
    (place.socket_path(home.path).parent).chmod(0o777)
    with pytest.raises(ConfigWrong):
        place.socket_path(home.path)


def test_wrong_passphrases_cost_time_also_after_a_restart(tmp_path: Path) -> None:
    now = [1000.0]

    def one(wrong: bool) -> None:
        with tries.attempt(tmp_path, clock=lambda: now[0]):
            if wrong:
                raise slots.wrong()

    for _ in range(3):
        with pytest.raises(PassphraseWrong):
            one(True)
    with pytest.raises(tries.LockedOut, match="5 seconds"):
        one(False)
    now[0] += 6
    with pytest.raises(PassphraseWrong):
        one(True)
    with pytest.raises(tries.LockedOut, match="10 seconds"):
        one(False)
    now[0] += 11
    one(False)
    one(False)
    assert tries.pause(100) == 900


def test_a_plain_swap_is_refused_unless_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, _ = sealed_home(tmp_path / "home")
    monkeypatch.setattr(opened, "swap", lambda: ["/dev/sda2"])
    with pytest.raises(ConfigWrong, match="sda2"):
        unlocking.unlock(home, "mira", WORDS)
    assert not place.running(home.path)
    unlocking.unlock(home, "mira", WORDS, allow_swap=True)
    unlocking.lock(home)


def test_a_job_keeps_its_keys_and_hands_them_to_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, master = sealed_home(tmp_path / "home")
    monkeypatch.setenv("CLOISTER_KEYS", "")
    for name in ("TMPDIR", "SQLITE_TMPDIR"):
        monkeypatch.setenv(name, tempfile.gettempdir())
    with agent(home, master):
        files.write_bytes(home.feedback / "a", b"x")
        mounted.keep(home.path)
    assert reading.read_bytes(home.feedback / "a") == b"x"  # although the site is locked
    assert opened.is_memory(Path(tempfile.gettempdir()))
    assert os.environ["SQLITE_TMPDIR"] == os.environ["TMPDIR"] == tempfile.gettempdir()
    code = (
        "import sys; from pathlib import Path; from appliance.core import reading\n"
        "try: print(reading.read_bytes(Path(sys.argv[1])))\n"
        "except Exception as problem: print(type(problem).__name__)"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code, str(home.feedback / "a")],
            pass_fds=given,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for given in (sealing.inherited(), ())
    ]
    assert said == ["b'x'", "Locked"]
    sealing.unmount(home.path)
    monkeypatch.undo()
    tempfile.tempdir = None


def test_a_home_without_a_vault_needs_none(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    files.write_bytes(home.feedback / "a", b"x")
    assert (home.feedback / "a").read_bytes() == b"x"
    assert unlocking.status(home) == {"vault": False, "locked": False}


def test_the_agent_gives_nothing_of_the_master_for_any_question(tmp_path: Path) -> None:
    """It holds the master, to have the slots follow the list of people; that answers with names only."""
    home, master = sealed_home(tmp_path / "home")
    with agent(home, master):
        assert place.ask(home.path, "follow", held="") == {"added": [], "removed": []}
        for values in ({}, {"head": {}, "first": "00", "signing": "00"}, {"head": 1}):
            for what in ("hold", "follow"):
                with pytest.raises(ConfigWrong):
                    place.ask(home.path, what, **values)
