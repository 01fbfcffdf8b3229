"""Peak memory of a training step against ordinary peft and Opacus, each kind in a process of its own.

A child builds the model, imports what any kind needs and takes one step; then the kernel's mark of the
most memory held (VmHWM, Linux) is put back, and read after two more steps. `above the model` takes
off what was resident just before them. Cases as in step.py; --sets names shapes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.kinds import KINDS
from bench.shapes import LENGTH, SHAPES, base_model, random_records
from bench.table import row, show

_SHAPES = ("h256x4", "SmolLM2-135M", "Qwen2.5-0.5B")


def run(options: Any) -> None:
    """Start one child per shape and kind."""
    asked = [name for name in options.sets.split(",") if name in SHAPES]
    for name in asked or _SHAPES:
        held = {kind: _child(name, kind, options.records) for kind in KINDS}
        case = f"{name} x{options.records or SHAPES[name].records}, all labelled"
        show(
            [
                row("memory", case, f"{metric}, private/{kind}", held["private"][key], held[kind][key], "MiB")
                for key, metric in (("peak", "peak"), ("above", "above the model"))
                for kind in KINDS
                if kind != "private"
            ],
            options.json,
        )


def _child(name: str, kind: str, records: int) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "bench.memory", name, kind, str(records)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(name: str, kind: str, records: int) -> SimpleNamespace:
    """`peak` and `above` in MiB, for the process this runs in."""
    import opacus.grad_sample.grad_sample_module_fast_gradient_clipping
    import opacus.optimizers  # noqa: F401 - every child holds the same libraries
    import torch

    torch.set_num_threads(1)
    shape = SHAPES[name]
    step = KINDS[kind](base_model(shape), random_records(shape, LENGTH, records), "cpu")
    step()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    step()
    step()
    peak = _status("VmHWM")
    return SimpleNamespace(peak=peak, above=peak - before)


def _status(key: str) -> float:
    """A line of /proc/self/status, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(key)


if __name__ == "__main__":
    print(json.dumps(vars(measure(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
