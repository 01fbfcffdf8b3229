"""Jobs run in the jail of their kind, or not at all; turning it off is somebody's deed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airgap_support import ROOT, in_child

from appliance.core.db import reading
from appliance.core.errors import ConfigWrong
from appliance.core.home import Home
from appliance.core.offline import ENVIRONMENT
from appliance.ops import jobs
from appliance.security import audit
from appliance.security.airgap import entering, policy
from appliance.security.airgap.filter import LISTEN, LOOPBACK, NONE
from appliance.security.airgap.syscalls import this_machine

held = pytest.mark.skipif(this_machine() is None, reason="no jail on this machine")
DEMO = {"demo": True, "name": "inbox", "patients": 160}


def test_every_kind_of_job_has_its_row() -> None:
    kinds = {entry.name for entry in importlib.metadata.entry_points(group="cloister.jobs")}
    assert kinds and kinds == set(entering.FIRST)
    assert {kind for kind, profile in entering.FIRST.items() if profile != NONE} == {"serve"}


def test_unknown_kinds_get_the_strictest_and_several_processes_a_network_of_their_own() -> None:
    assert entering.first_profile("new-kind", {}) == NONE
    assert entering.first_profile("serve", {}) == LISTEN
    assert entering.first_profile("train", {"settings": {"processes": 1}}) == NONE
    assert entering.first_profile("train", {"settings": {"processes": 2}}) == LOOPBACK
    assert entering.first_profile("import", {"settings": {"processes": 2}}) == NONE


@held
def test_a_job_runs_in_its_jail_and_says_so(home: Home) -> None:
    done = jobs.wait(home, jobs.start(home, "import", DEMO, title="import", who="test"), 120)
    assert done.state == "done"
    (event,) = [event for event in done.events if event["event"] == "jail"]
    assert event["profile"] == "none" and event["seen_open"]


WORKER = """
from pathlib import Path
from appliance.ops import worker
def probe(spec, job):
    return {{"tcp": number(socket.socket, 2, 1), "inherited": number(os.fstat, {handle})}}
{change}
worker._code = lambda kind: probe
worker.main(Path(sys.argv[1]) if sys.argv[1:] else Path({folder!r}))
tell(**json.loads((Path({folder!r}) / "result.json").read_bytes()))
"""


def probed(home: Home, monkeypatch: pytest.MonkeyPatch, change: str = "") -> Any:
    folder = home.jobs / "0001"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(json.dumps({"kind": "import", "who": "test", "spec": {}}))
    monkeypatch.setenv("CLOISTER_HOME", str(home.path))
    with (home.path / "open").open("w") as stream:
        os.set_inheritable(stream.fileno(), True)
        words = WORKER.format(folder=str(folder), handle=stream.fileno(), change=change)
        return in_child(words, files=[stream.fileno()])


@held
def test_the_workers_own_call_is_what_shuts_the_door(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert probed(home, monkeypatch) == {"tcp": 1, "inherited": 9}
    without = probed(home, monkeypatch, "worker.enter_first = lambda *words, **kept: None")
    assert without == {"tcp": 0, "inherited": 0}


@held
def test_off_lets_jobs_run_without_and_required_ends_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    policy.set_policy(home, policy.OFF, who="anna", because="no seccomp on the old box")
    assert probed(home, monkeypatch)["tcp"] == 0
    policy.set_policy(home, policy.REQUIRED, who="anna", because="")
    assert probed(home, monkeypatch)["tcp"] == 1


def test_a_machine_without_a_jail_runs_no_job(home: Home) -> None:
    found = in_child(f"""
from pathlib import Path
from appliance.core.home import open_home
jail.this_machine = lambda: None
from appliance.security.airgap.entering import enter_first
home = open_home(Path({str(home.path)!r}))
try:
    enter_first(home, "train", {{}})
    tell(said=None)
except jail.JailRefused as problem:
    tell(said=problem.message, hint=problem.hint)
""")
    assert "There is no jail for" in found["said"] and "policy off" in found["hint"]


def test_the_policy_counts_only_with_its_entry_in_the_log(home: Home) -> None:
    assert policy.policy(home) == policy.REQUIRED
    with pytest.raises(ConfigWrong, match="reason"):
        policy.set_policy(home, policy.OFF, who="anna", because=" ")
    with pytest.raises(ConfigWrong, match="no policy"):
        policy.set_policy(home, "maybe", who="anna", because="x")
    path = home.path / "airgap.json"
    path.write_text('{"jail": "off", "audit": 1}')
    assert policy.policy(home) == policy.REQUIRED, "no entry"
    path.unlink()
    policy.set_policy(home, policy.OFF, who="anna", because="a test box")
    assert policy.policy(home) == policy.OFF
    old = path.read_bytes()
    policy.set_policy(home, policy.REQUIRED, who="boris", because="")
    path.write_bytes(old)
    assert policy.policy(home) == policy.REQUIRED, "an old file does not undo it"
    with reading(home) as link:
        said = [(entry["who"], entry["what"], entry["jail"]) for entry in audit.tail(link, 5)]
    assert said == [("anna", "airgap.policy", "off"), ("boris", "airgap.policy", "required")]


SERVER = """
import asyncio
from pathlib import Path
from appliance.serve.supervisor import Supervisor
async def main():
    code = "import socket, sys, time; print(open('/proc/self/status').read(), flush=True); "
    code += "s = socket.socket(socket.AF_UNIX); s.settimeout(1)\\n"
    code += "try: s.connect('/dev/fd/9')\\nexcept OSError as p: print('connect', p.errno, flush=True)\\n"
    code += "time.sleep(60)"
    ready = asyncio.Event()
    async def answers():
        await asyncio.sleep(1); return True
    child = Supervisor([sys.executable, "-c", code], environment=dict(os.environ), log_path=Path({log!r}),
        answers=answers, clear=lambda: None, log=print)
    await child.start()
    await child.stop()
{before}
asyncio.run(main())
tell(log=open({log!r}).read())
"""


@held
def test_an_engine_may_connect_to_nothing_though_its_gateway_may(tmp_path: Path) -> None:
    words = {"log": str(tmp_path / "log.txt")}
    jailed = in_child(SERVER.format(before="enter(LISTEN, keep=()); enter(SERVE)", **words))["log"]
    assert "connect 1\n" in jailed and re.search(r"Seccomp_filters:\s+3", jailed)
    (tmp_path / "log.txt").unlink()
    assert "connect 1\n" not in in_child(SERVER.format(before="", **words))["log"]


NETWORK = re.compile(r"(?:connect|sendto|sendmsg|sendmmsg)\(.*sa_family=AF_INET6?, .*")
HERE = re.compile(r'inet_addr\("127\.|"::1"')


def called_out(words: list[str], trace: Path, environment: dict[str, str]) -> list[str]:
    """Lines of strace that name an address beyond this machine, of a program in an empty network."""
    strace = ["strace", "-f", "-o", str(trace), "-e", "trace=connect,sendto,sendmsg,sendmmsg"]
    subprocess.run(
        ["unshare", "-rn", *strace, *words], env=environment, capture_output=True, timeout=300, check=False
    )
    lines = trace.read_text().splitlines()
    assert lines, "strace saw nothing"
    return [line for line in lines if NETWORK.search(line) and not HERE.search(line)]


def _traces() -> bool:
    words = ["unshare", "-rn", "strace", "-o", "/dev/null", "true"]
    found = shutil.which("strace") and shutil.which("unshare")
    return bool(found) and subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not _traces(), reason="needs strace and user namespaces")
def test_the_environment_is_what_keeps_flower_at_home(tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "flower-superlink"
    if not program.exists():
        pytest.skip("needs the site profile")
    bare = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    bare |= {"FLWR_HOME": str(tmp_path / "flwr")}
    trace = tmp_path / "trace.txt"
    assert called_out([str(program), "--help"], trace, bare), "the trace would show a call home"
    assert called_out([str(program), "--help"], trace, bare | ENVIRONMENT) == []


@pytest.mark.slow
@pytest.mark.skipif(not _traces(), reason="needs strace and user namespaces")
def test_a_job_names_no_address_beyond_this_machine(home: Home, tmp_path: Path) -> None:
    code = f"""
from appliance.core.home import open_home
from appliance.ops import jobs
jobs.wait(open_home(), jobs.start(open_home(), "import", {DEMO!r}, title="import", who="test"), 200)
"""
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CLOISTER_HOME": str(home.path)}
    trace = tmp_path / "trace.txt"
    assert called_out(command, trace, environment) == []
    assert jobs.view(home, "1").state == "done"
