"""What an engine has open is shut to others of its account; so are children of a run and of documents."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airgap_support import ROOT

from appliance.serve.supervisor import Supervisor
from appliance.serve.unreadable import unreadable
from appliance.train import ranks

LOOKS = """
import json, os, subprocess, sys, time
from pathlib import Path
from appliance.serve.unreadable import unreadable
if os.getuid() == 0:  # who may read everything
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
def look(program, *more):
    secret = os.memfd_create("secret")
    os.write(secret, b"words of a record")
    child = subprocess.Popen(["sleep", "60"], executable=program, pass_fds=[secret, *more])
    try:
        for _ in range(20):  # Popen returns a moment before the kernel has opened the new program
            try:
                return open(f"/proc/{child.pid}/fd/{secret}", "rb").read().decode()
            except PermissionError:
                time.sleep(0.05)
        return "shut"
    finally:
        child.kill(); child.wait()
with unreadable(Path(sys.argv[1])) as copy:
    print(json.dumps([look(sys.argv[1]), look(f"/proc/self/fd/{copy}", copy)]))
"""


def test_no_other_process_of_the_account_reads_what_an_engine_has_open() -> None:
    sleep = shutil.which("sleep")
    if sleep is None:
        pytest.skip("no program to run")
    done = subprocess.run(
        [sys.executable, "-c", LOOKS, sleep],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["words of a record", "shut"]


def test_a_script_is_not_run_from_memory(tmp_path: Path) -> None:
    (tmp_path / "server").write_text("#!/bin/sh\n")
    with pytest.raises(OSError, match="Exec format"), unreadable(tmp_path / "server"):
        pass


def test_an_engine_is_started_so_and_a_script_as_it_is(tmp_path: Path) -> None:
    script = tmp_path / "server"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    said: list[str] = []
    for number, (program, where) in enumerate(((sys.executable, "/memfd:"), (str(script), "/"))):
        log = tmp_path / f"{number}.txt"
        code = "import os, time; print('exe', os.readlink('/proc/self/exe'), flush=True); time.sleep(60)"
        asyncio.run(_started([program, "-c", code], log, said))
        assert f"exe {where}" in log.read_text()
    assert ["can be looked into" in line for line in said] == [True]
    assert "exe /memfd:" not in log.read_text()


async def _started(argv: list[str], log: Path, said: list[str]) -> None:
    async def answers() -> bool:
        return log.exists() and "exe" in log.read_text()

    child = Supervisor(
        argv, environment=os.environ, log_path=log, answers=answers, clear=lambda: None, log=said.append
    )
    await child.start()
    await child.stop()


def dumpable() -> int:
    return int(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))


def test_a_runs_processes_are_shut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "torch" / "distributed"
    fake.mkdir(parents=True)
    for folder in (fake.parent, fake):
        (folder / "__init__.py").touch()
    code = "import ctypes, sys; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), sys.argv[1:])"
    (fake / "run.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    words = [sys.executable, "-c", ranks._TORCHRUN, "--standalone"]
    told = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    assert told.strip() == "0 ['--standalone']"
    assert _in_a_fork(lambda: ranks._main(tmp_path), ranks, "stay_offline", monkeypatch) == 0
    assert dumpable() == 1  # the test can see it


def _in_a_fork(act: Any, module: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Whether a fork of this process is dumpable once `act` has come to call `name`."""
    monkeypatch.setattr(module, name, lambda: os._exit(10 + dumpable()))
    pid = os.fork()
    if not pid:
        try:
            act()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) - 10
