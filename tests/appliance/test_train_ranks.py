"""A run on two processes is the run of one: the same clipped sums, one ledger, one noise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

_CHILD = Path(__file__).with_name("ranks_child.py")
_ROOT = Path(__file__).parents[2]


def computed(folder: Path, processes: int) -> Any:
    target = folder / f"{processes}.npz"
    command = [sys.executable, str(_CHILD), str(target)]
    if processes > 1:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
        command = [*torchrun, f"--nproc-per-node={processes}", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(target)


@pytest.mark.slow
def test_two_processes_give_the_clipped_sums_of_one(tmp_path: Path) -> None:
    one, two = computed(tmp_path, 1), computed(tmp_path, 2)
    assert np.abs(one["gradients"]).max() > 0
    assert np.array_equal(one["gradients"][0], two["gradients"][0]), "integer sums, exact in any order"
    assert np.array_equal(one["gradients"], two["gradients"])
    assert np.array_equal(one["weights"], two["weights"])
    assert not two["apart"].any(), "both processes hold the same weights"
    assert np.array_equal(two["drawn"], 2 * two["sizes"]), "both drew the same sample"
