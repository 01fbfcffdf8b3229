"""kill -9 at any moment of a private run: nothing under-counted, nothing corrupt, no noise twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_HARNESS = Path(__file__).with_name("kill_support.py")
_ROOT = Path(__file__).parents[2]


def account(folder: Path, kills: int, seed: int, spoil: str = "") -> dict[str, Any]:
    """What the harness tells, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(_HARNESS), str(folder), str(kills), str(seed), spoil],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    return told


def check(told: dict[str, Any], kills: int) -> None:
    assert told["kills"] == kills
    assert not told["corrupt"] and told["under"] == 0 and told["repeated"] == 0
    assert told["charged"] >= told["drawn"] > 0


@pytest.mark.slow
def test_twenty_kills_leave_the_ledger_right(tmp_path: Path) -> None:
    check(account(tmp_path, 20, seed=1), 20)


@pytest.mark.soak
def test_a_thousand_kills_leave_the_ledger_right(tmp_path: Path) -> None:
    told = account(tmp_path, 1000, seed=2)
    check(told, 1000)
    assert len(told["where"]) > 5, "the kills landed in many places"


@pytest.mark.slow
def test_the_proof_sees_a_ledger_that_is_late(tmp_path: Path) -> None:
    assert account(tmp_path, 12, seed=3, spoil="late")["under"] > 0


@pytest.mark.slow
def test_the_proof_sees_noise_that_comes_again(tmp_path: Path) -> None:
    assert account(tmp_path, 6, seed=4, spoil="replay")["repeated"] > 0
