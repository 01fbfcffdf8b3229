"""What is left of the privacy budgets, read by `cloister budget show` in a process of its own.

Working out epsilon loads torch, which would hold up the screen for seconds in this process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_PATIENCE = 180.0  # seconds


def read_budgets(home: Path, cancelled: Callable[[], bool]) -> list[str]:
    """One line a dataset, or one line that says why not. Ends at once when `cancelled`."""
    command = [sys.executable, "-m", "tui.launch", "budget", "show", "--json", "--home", str(home)]
    with tempfile.TemporaryFile() as out:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL, env={**os.environ}
        ) as child:
            limit = time.monotonic() + _PATIENCE
            while child.poll() is None:
                if cancelled() or time.monotonic() > limit:
                    child.kill()
                    return []
                time.sleep(0.1)
        out.seek(0)
        return budget_lines(out.read(1_000_000))


def budget_lines(answer: bytes) -> list[str]:
    """The lines for the JSON that `budget show` printed."""
    try:
        found = json.loads(answer)["datasets"]
        return [
            f"budget {row['name']}: eps {max(0.0, row['epsilon_limit'] - row['epsilon_spent']):.2f}"
            f" of {row['epsilon_limit']:g} left"
            for row in found
        ]
    except (ValueError, KeyError, TypeError):
        return ["Budgets: see cloister budget show"]
