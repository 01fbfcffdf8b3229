"""The edge profile installs the plain dependencies alone: what it loads must find all it needs among them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOADING = """
import importlib, pkgutil, sys
sys.path[:0] = sys.argv[1:]
import edge
import tui.screens
screens = [f"tui.screens.{found.name}" for found in pkgutil.iter_modules(tui.screens.__path__)]
for name in (*edge.WARMED, "llama_cpp", *screens):
    importlib.import_module(name)
"""


def brought(asked: list[str]) -> set[str]:
    """The distributions that installing what is `asked` brings."""
    seen, left = set[tuple[str, str]](), list[tuple[str, str]]()
    for wanted in map(Requirement, asked):
        left += [(canonicalize_name(wanted.name), extra) for extra in ("", *wanted.extras)]
    while left:
        if (here := left.pop()) in seen:
            continue
        seen.add(here)
        for wanted in map(Requirement, metadata.requires(here[0]) or ()):
            if wanted.marker is None or wanted.marker.evaluate({"extra": here[1]}):
                left += [(canonicalize_name(wanted.name), extra) for extra in ("", *wanted.extras)]
    return {one for one, _ in seen}


def test_what_the_edge_profile_loads_is_among_its_dependencies(tmp_path: Path) -> None:
    names = brought(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    assert {"numpy", "textual", "llama-cpp-python"} <= names and "torch" not in names
    for name in names:
        for top in {file.parts[0] for file in metadata.files(name) or () if file.parts[0] not in ("..", "/")}:
            place = tmp_path / top
            if not place.is_symlink():
                place.symlink_to(metadata.distribution(name).locate_file(top))
    argv = [sys.executable, "-I", "-S", "-W", "ignore", "-c", LOADING]
    paths = [str(tmp_path), str(ROOT), str(ROOT / "packaging")]
    done = subprocess.run([*argv, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
