"""Rules of the tree that a reader relies on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("appliance", "federated", "quantize", "tui")


def test_no_file_is_longer_than_400_lines() -> None:
    folders = (*PACKAGES, "tests", "bench", "packaging")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 50
    assert [str(file) for file in files if len(file.read_text().splitlines()) > 400] == []


def imported_by(module: str) -> set[str]:
    code = f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


@pytest.mark.parametrize("module", ["tui.cli", "tui.launch", "tui.session", "appliance.ops.worker"])
def test_the_faces_start_without_heavy_libraries(module: str) -> None:
    heavy = {"torch", "transformers", "peft", "opacus", "flwr", "sklearn", "textual", "llama_cpp", "scipy"}
    assert imported_by(module) & heavy == set()


def test_core_is_standard_library_only() -> None:
    loaded = imported_by("appliance.core.db, appliance.core.job, appliance.core.files")
    assert {name for name in loaded if name not in sys.stdlib_module_names and not name.startswith("_")} <= {
        "appliance",
        "sitecustomize",
    }


def test_imports_keep_the_direction_of_the_design() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_pickle_is_never_loaded() -> None:
    """Nothing that crosses a trust border is unpickled (the test fails when a call is added)."""
    banned = ("pickle.load", "torch.load(", "joblib", "trust_remote_code=True", "allow_pickle=True")
    files = [file for folder in PACKAGES for file in (ROOT / folder).rglob("*.py")]
    assert [(str(file), word) for file in files for word in banned if word in file.read_text()] == []
