"""Secure noise: what a draw costs of a training step, and how fast it is beside other generators.

A draw for a model of SmolLM2-135M's size has 921,600 parameters (LoRA of rank 8 on q, k, v and o),
standard deviation 1.3 C. torch.normal is insecure (Mersenne Twister); os.urandom gives 8 random bytes
a sample and no Gaussian; Box-Muller turns the same AES keystream as ours into float64 numbers, which
floating-point attacks can tell apart.
"""

from __future__ import annotations

import os
import statistics
from typing import Any

from bench.kinds import private
from bench.shapes import LENGTH, SHAPES, base_model, random_records
from bench.table import in_turns, row, show

_SIZES = (24_576, 921_600)
_SHARE_OF = "SmolLM2-135M"


def run(options: Any) -> None:
    """Time the draws, then one of them against a private step."""
    import numpy as np
    import torch

    from appliance.privacy.noise import LATTICE, Keystream, discrete_gaussian

    torch.set_num_threads(1)
    stream = Keystream()

    def box_muller(size: int) -> Any:
        radius = np.sqrt(-2.0 * np.log(stream.uniform(size // 2)))
        angle = 2.0 * np.pi * stream.uniform(size // 2)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])

    rows = []
    for size in _SIZES:
        taken = in_turns(
            {
                "lattice": lambda size=size: discrete_gaussian(size, 1.3 * LATTICE, stream),
                "torch.normal": lambda size=size: torch.normal(0.0, 1.3, (size,)),
                "os.urandom": lambda size=size: os.urandom(8 * size),
                "Box-Muller, AES-CTR": lambda size=size: box_muller(size),
            },
            options.rounds or 25,
        )
        speed = {name: size / statistics.median(seconds) for name, seconds in taken.items()}
        rows += [
            row(
                "noise", f"{size:,} parameters", f"lattice/{peer}", speed["lattice"], speed[peer], "samples/s"
            )
            for peer in speed
            if peer != "lattice"
        ]
    show([*rows, _share(_SIZES[-1], options)], options.json)


def _share(size: int, options: Any) -> dict[str, Any]:
    from appliance.privacy.noise import LATTICE, Keystream, discrete_gaussian

    stream, shape = Keystream(), SHAPES[_SHARE_OF]
    records = random_records(shape, LENGTH, options.records)
    works = {
        "draw": lambda: discrete_gaussian(size, 1.3 * LATTICE, stream),
        "step": private(base_model(shape), records, "cpu"),
    }
    taken = {name: statistics.median(seconds) for name, seconds in in_turns(works, 3).items()}
    case = f"{_SHARE_OF} x{len(records)}, all labelled"
    return row("noise", case, "draw/private step", taken["draw"], taken["step"], "CPU s")
