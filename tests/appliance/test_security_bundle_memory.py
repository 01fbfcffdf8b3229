"""Memory stays the same at any size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CEILING = 64  # MiB, Python and its libraries included


@pytest.mark.parametrize("megabytes", [64, pytest.param(2000, marks=pytest.mark.soak)])
def test_export_and_verify_stay_small(tmp_path: Path, megabytes: int) -> None:
    child = Path(__file__).with_name("bundle_memory.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(child.parent), *sys.path])}
    command = [sys.executable, str(child), str(tmp_path), str(megabytes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= CEILING
