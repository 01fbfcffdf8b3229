"""A child has limits; beyond them, it ends and the parent says so."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import fuzz_support
import pytest

from appliance.core.errors import EngineFailed, JailRefused, NoRoom
from appliance.core.home import open_home
from appliance.core.sealing import KEYS, inherited
from appliance.security.airgap.jail import holds_files
from appliance.security.airgap.policy import set_policy
from quantize import worker


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a child import this folder's modules."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


@pytest.mark.usefixtures("helpers")
def test_a_child_has_limits() -> None:
    held = worker.run(fuzz_support.limits, doing="Asking", timeout=60, memory=3_000_000_000)
    assert held["CORE"] in ([1, 1], [0, 0]) and held["AS"] == [3_000_000_000] * 2
    assert held["CPU"][0] == 60 * len(os.sched_getaffinity(0)) + 5


@pytest.mark.usefixtures("helpers")
def test_a_lower_limit_of_the_system_stays() -> None:
    code = (
        "import resource, fuzz_support; from quantize import worker;"
        "resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000,) * 2);"
        "print(worker.run(fuzz_support.limits, doing='Asking', timeout=60, memory=3_000_000_000)['AS'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[2000000000, 2000000000]", done.stderr


@pytest.mark.usefixtures("helpers")
@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("burn", EngineFailed, "used up its processor time"),
        ("fill", NoRoom, "more memory than it may have"),
        ("flood", EngineFailed, "wrote without end"),
        ("hang", EngineFailed, "took longer than 5 s"),
    ],
)
def test_beyond_its_limits_a_child_ends_with_a_typed_error(
    name: str, kind: type[Exception], said: str
) -> None:
    began = time.monotonic()
    with pytest.raises(kind, match=said) as caught:
        limit = {"timeout": 5} if name == "hang" else {"timeout": 100, "memory": 4_000_000_000}
        worker.run(getattr(fuzz_support, name), doing="Opening it", **limit)
    assert "Opening it" in str(caught.value) and getattr(caught.value, "hint", "")
    assert time.monotonic() - began < 60


@pytest.mark.usefixtures("helpers")
def test_an_answer_that_is_none_is_a_typed_error() -> None:
    with pytest.raises(EngineFailed, match="an answer that cannot be read"):
        worker.run(fuzz_support.lie, doing="Opening it", folder="x")


@pytest.mark.usefixtures("helpers")
def test_a_child_is_shut_in_though_its_parent_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "agent.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        assert fuzz_support.open_doors(path)["unix"] == "open"  # as of this process: the test can see it
        held = worker.run(fuzz_support.open_doors, doing="Asking", timeout=60, path=path)
    assert held == {"network": "PermissionError", "unix": "PermissionError"}


@pytest.mark.usefixtures("helpers")
def test_a_child_has_no_key_and_writes_where_it_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run", "work"):
        (tmp_path / name).mkdir()
    handle = os.memfd_create(KEYS, 0)  # as a job's, which its children inherit
    try:
        monkeypatch.setenv(KEYS, str(handle))
        assert inherited() == (handle,)
        there = [str(tmp_path / "run"), str(tmp_path / "work")]
        held = worker.run(
            fuzz_support.keys_and_files, doing="Asking", timeout=60, writes=[tmp_path / "work"], there=there
        )
    finally:
        os.close(handle)
    shut = "PermissionError" if holds_files() else "open"
    assert held == {"named": False, "keys": [], there[0]: shut, there[1]: "open"}


@pytest.mark.usefixtures("helpers")
def test_a_machine_without_a_jail_opens_nothing_unless_the_site_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOISTER_HOME", str(tmp_path / "home"))
    broken = tmp_path / "sitecustomize.py"
    broken.write_text("import platform; platform.machine = lambda: 'abacus'\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    with pytest.raises(JailRefused):
        worker.run(fuzz_support.place, doing="Asking", timeout=60)
    set_policy(open_home(tmp_path / "home"), "off", who="joe", because="an abacus")
    assert worker.run(fuzz_support.place, doing="Asking", timeout=60)


@pytest.mark.usefixtures("helpers")
def test_a_module_in_the_working_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a stranger's stick."""
    (tmp_path / "json.py").write_text("open('ran', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    assert Path(worker.run(fuzz_support.place, doing="Asking", timeout=60)) != tmp_path / "json.py"
    assert not (tmp_path / "ran").exists()
