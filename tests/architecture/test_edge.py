"""The edge profile: nothing that serves needs what only a site has, and the installation stays small."""

from __future__ import annotations

import ast
import configparser
import fnmatch
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.models.importing import DEMO_BASE
from quantize.convert import convert
from quantize.source import open_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
UNIT = ROOT / "packaging" / "systemd" / "cloister-serve@.service"
IMPORTED_AS = {
    "scikit-learn": "sklearn",
    "llama-cpp-python": "llama_cpp",
    "prometheus-client": "prometheus_client",
}
BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ImportError(f"the edge profile has no {{name}}")

sys.meta_path.insert(0, Blocked())
"""


def needed(lines: list[str]) -> set[str]:
    """What packages are imported as, from requirement lines."""
    names = [re.split(r"[\[=<>~! ;]", line)[0] for line in lines]
    return {IMPORTED_AS.get(name, name) for name in names}


PLAIN = needed(PROJECT["project"]["dependencies"])
SITE = needed(PROJECT["project"]["optional-dependencies"]["site"])


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "packaging"))  # edge.py imports what lies beside it
    spec = importlib.util.spec_from_file_location("cloister_edge", ROOT / "packaging" / "edge.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, also inside its functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


def test_serving_imports_plain_dependencies_only() -> None:
    allowed = PLAIN | {"appliance", "h11", "anyio"} | sys.stdlib_module_names  # the two come with uvicorn
    for package in ("serve", "core", "security"):
        for file in (ROOT / "appliance" / package).rglob("*.py"):
            assert {name.partition(".")[0] for name in imports(file)} <= allowed, file


def test_models_are_imported_served_and_asked_without_the_site_extra(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(names=SITE))
    convert(open_checkpoint(DEMO_BASE), tmp_path / "demo.gguf", "F16", name="demo")
    clean = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "CLOISTER_HOME": str(tmp_path / "home")}

    def cloister(*words: str) -> Any:
        argv = [sys.executable, "-m", "tui.launch", *words, "--json"]
        done = subprocess.run(argv, env=clean, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    blocked = subprocess.run(
        [sys.executable, "-c", "import torch"], env=clean, capture_output=True, check=False
    )
    assert b"the edge profile has no torch" in blocked.stderr
    assert cloister("model", "import", str(tmp_path / "demo.gguf"), "--name", "demo")["name"] == "demo"
    # Starts the job `serve`, a child that is blocked too, and asks it over HTTP.
    assert cloister("chat", "demo", "--free", "--ask", "Hello")["answer"]


def test_what_the_installer_warms_is_all_there(edge: Any) -> None:
    for name in edge.WARMED:
        assert importlib.util.find_spec(name) is not None, name


def shipped(file: Path, pattern: str) -> bool:
    """Whether setuptools' `pattern`, in which a star stays within one folder, takes `file`."""
    parts = pattern.split("/")
    return len(parts) == len(file.parts) and all(map(fnmatch.fnmatch, file.parts, parts))


def test_every_file_that_is_no_code_reaches_an_installed_copy() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    for package in ("appliance", "federated", "quantize", "tui"):
        for file in (ROOT / package).rglob("*"):
            if not file.is_file() or file.suffix in (".py", ".pyc"):
                continue
            inside = next(parent for parent in file.parents if (parent / "__init__.py").exists())
            where = file.relative_to(inside)
            assert any(shipped(where, pattern) for pattern in patterns), file


def test_copies_of_a_library_share_their_disk(edge: Any, tmp_path: Path) -> None:
    for name, content in (("a.so", b"one"), ("a.so.0", b"one"), ("a.so.0.5", b"one"), ("b.so", b"two")):
        (tmp_path / name).write_bytes(content)
    assert edge.share_copies(tmp_path) == 6
    assert len({file.stat().st_ino for file in tmp_path.iterdir()}) == 2
    assert (tmp_path / "a.so.0.5").read_bytes() == b"one" and (tmp_path / "b.so").read_bytes() == b"two"
    assert edge.share_copies(tmp_path) == 0


def test_tests_and_headers_go_and_code_stays(edge: Any, tmp_path: Path) -> None:
    place = tmp_path / "lib" / "python3.11" / "site-packages"
    gone = ["numpy/linalg/tests/test_x.py", "numpy/a.pyi", "numpy/_core/lib/libx.a", "llama_cpp/include/x.h"]
    stays = ["numpy/linalg/x.py", "numpy/testing/x.py", "llama_cpp/lib/libllama.so", "appliance/tests/x.py"]
    for name in gone + stays:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("")
    edge.slim(tmp_path)
    assert [name for name in gone if (place / name).exists()] == []
    assert [name for name in stays if not (place / name).exists()] == []


def test_a_job_of_its_own_has_no_network() -> None:
    lines = UNIT.with_name("cloister-job@.service").read_text().splitlines()
    assert {"PrivateNetwork=yes", "IPAddressDeny=any", "NoNewPrivileges=yes", "PrivateTmp=yes"} <= set(lines)
    assert (
        "SystemCallFilter=seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self" in lines
    )


def test_the_unit_reaches_nothing_it_does_not_need() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT.read_text())
    service = unit["Service"]
    assert service["IPAddressDeny"] == "any" and service["IPAddressAllow"] == "localhost"
    assert service["ProtectSystem"] == "strict" and service["ReadWritePaths"] == "/var/lib/cloister"
    assert service["CapabilityBoundingSet"] == "" and service["MemoryMax"] == "1G"
    for name in ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome", "MemoryDenyWriteExecute"):
        assert service[name] == "yes", name
    allowed = [line for line in UNIT.read_text().splitlines() if line.startswith("SystemCallFilter=")]
    calls = {"seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"}
    assert calls <= set(allowed[1].partition("=")[2].split()), "else the job could not enter its jail"
    # The command drains on Ctrl-C; any other signal, or one to all processes, would cut answers short.
    assert (service["KillSignal"], service["KillMode"]) == ("SIGINT", "mixed")
