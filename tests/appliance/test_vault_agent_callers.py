"""Whom the key agent takes a caller for, as numbers are given again; what the lock leaves in memory."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from vault_support import agent, keys_of, sealed_home

from appliance.core.home import Home
from appliance.security import canonical
from appliance.security.vault import agent as agents
from appliance.security.vault import place, unlocking


def _signed_in(home: Home, master: bytes, began: str) -> agents.Held:
    """mira, on the terminal session of this process, whose leader began at `began`."""
    held = agents.Held(home=home, master=master, keys=keys_of(home, master), minutes=1)
    held.people[os.getsid(0)] = ("mira", Ed25519PrivateKey.generate(), began)
    return held


def test_a_number_given_again_is_not_the_session_that_signed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers come round within seconds where there are 32,768."""
    home, master = sealed_home(tmp_path / "home")
    for began, name in (("7", "mira"), ("8", "")):
        held = _signed_in(home, master, "7")
        monkeypatch.setattr(agents, "leader", lambda session, began=began: began)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(canonical.encode({"do": "who"}) + b"\n")
            agents._talk(held, theirs)
            assert canonical.decode(ours.recv(1000)[:-1]) == {"name": name}


def test_who_has_ended_asks_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It connected, gave the socket away and ended: its number may be of mira's terminal by now."""
    home, master = sealed_home(tmp_path / "home")
    held = _signed_in(home, master, "7")
    monkeypatch.setattr(agents, "leader", lambda session: "7")
    told = {}
    for ends in (False, True):
        path = str(tmp_path / f"{ends}.sock")
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as ours:
            listener.bind(path)
            listener.listen()
            if ends and not (child := os.fork()):
                ours.connect(path)
                os._exit(0)
            if ends:
                os.waitpid(child, 0)
                here = os.getsid(0)
                monkeypatch.setattr(agents.os, "getsid", lambda pid, here=here: here)
            else:
                ours.connect(path)
            link, _ = listener.accept()
            with link:
                try:
                    link.getsockopt(socket.SOL_SOCKET, place._SO_PEERPIDFD)
                except OSError as problem:
                    if problem.errno == errno.ENOPROTOOPT:
                        pytest.skip("needs Linux 6.5")
                ours.sendall(canonical.encode({"do": "sign", "payload": "00"}) + b"\n")
                with suppress(OSError):
                    agents._talk(held, link)
            try:
                told[ends] = ours.recv(1000)
            except ConnectionResetError:  # closed without reading what was asked
                told[ends] = b""
    assert b"signature" in told[False] and not told[True]


def test_who_is_outside_of_this_container_shares_no_session(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert agents._session(theirs, 0) == 0 and agents.leader(0) == ""


def test_the_lock_removes_what_the_killed_left_in_memory(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "home")
    code = (
        "import os, signal; from appliance.security.vault.opened import scratch\n"
        "folder = scratch(); (folder / 'plain').write_text('words'); print(folder, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    for idle in (False, True):
        with agent(home, master, minutes=1.5 / 60 if idle else 10.0):
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
            left = Path(done.stdout.strip())
            assert (left / "plain").exists()
            if idle:
                while place.running(home.path):
                    time.sleep(0.05)
                unlocking._agents[-1].wait(60)
            else:
                unlocking.lock(home)
        assert not left.exists()
