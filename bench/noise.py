"""Discrete Gaussian noise from AES-CTR against torch.normal."""

from __future__ import annotations

from typing import Any

from bench.table import alternate, row, show


def run(options: Any) -> None:
    """Time one draw for 24,576 and for 921,600 parameters."""
    import torch

    from appliance.privacy.noise import LATTICE, Keystream, discrete_gaussian

    stream = Keystream()
    rows = []
    for size in (24_576, 921_600):
        ours, peer = alternate(
            lambda size=size: discrete_gaussian(size, 1.3 * LATTICE, stream),
            lambda size=size: torch.normal(0.0, 1.3, (size,)),
        )
        rows.append(row("noise", f"{size:,} parameters", "lattice/torch.normal", ours, peer, "CPU s"))
    show(rows, options.json)
