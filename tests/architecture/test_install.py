"""The installer says what is missing, and what to do, before it starts."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "packaging" / "install.py"


@pytest.fixture
def install() -> Any:
    spec = importlib.util.spec_from_file_location("cloister_install", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_compiler_it_names_the_package_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "venv")],
        env={"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no C++ compiler" in done.stderr and "apt-get install gcc g++" in done.stderr


def test_another_python_is_refused(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install.sys, "version_info", (3, 9, 2))
    with pytest.raises(install.CannotInstall) as problem:
        install.check_python()
    assert "3.11" in problem.value.args[0] and "PYTHON=" in problem.value.args[1]


def test_a_full_disk_is_refused(install: Any, tmp_path: Path) -> None:
    with pytest.raises(install.CannotInstall) as problem:
        install.check_room(tmp_path / "deep" / "down", 10**18)
    assert "GB free" in problem.value.args[0]


def test_the_cache_key_follows_version_and_flags(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = install.build_key()
    assert before == install.build_key()
    monkeypatch.setattr(install, "LLAMA", "llama-cpp-python==9.9.9")
    assert install.build_key() != before


def test_what_the_operator_asks_of_the_build_comes_behind_ours_and_has_a_wheel_of_its_own(
    install: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    plain, key = install.cmake_args(), install.build_key()
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=ON  -DCMAKE_CUDA_ARCHITECTURES=90")
    built: list[dict[str, str]] = []

    def pip(venv: Path, *words: str, **environment: str) -> None:
        built.append(environment)
        folder = Path(words[words.index("-w") + 1])
        folder.mkdir(parents=True)
        (folder / "llama_cpp_python-0-py3-none-any.whl").touch()

    monkeypatch.setattr(install, "pip", pip)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CUDACXX", "nvcc")
    wheel = install.llama_wheel(tmp_path / "venv")
    assert [each["CMAKE_ARGS"] for each in built] == [f"{plain} -DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=90"]
    assert wheel.parent.name == install.build_key() != key
    assert install.llama_wheel(tmp_path / "venv") == wheel and len(built) == 1, "built again"


def test_cuda_without_its_compiler_is_refused_before_the_build(
    install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=ON")
    monkeypatch.delenv("CUDACXX", raising=False)
    monkeypatch.setattr(install.shutil, "which", lambda tool: None if tool == "nvcc" else f"/usr/bin/{tool}")
    with pytest.raises(install.CannotInstall) as problem:
        install.check_compiler()
    assert "nvcc not found" in problem.value.args[0]


def test_a_long_step_gives_signs_of_life(install: Any, capfd: pytest.CaptureFixture[str]) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5); raise SystemExit(3)"])
    assert sys.modules["steps"].wait(child, 0.1) == 3
    said = capfd.readouterr().out.splitlines()
    assert len(said) >= 2 and set(said) == {"install: ... 0:00"}


def test_on_a_terminal_they_stay_in_one_line(
    install: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.4)"]) as child:
        assert sys.modules["steps"].wait(child, 0.1) == 0
    said = capsys.readouterr().out
    assert "\n" not in said and said.startswith("\rinstall: ... 0:00") and said.endswith("\r\x1b[K")


def test_interrupted_it_leaves_no_child(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr("builtins.print", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sys.modules["steps"].wait(child, 0.1)
    assert child.returncode is not None
