"""The clipped sum: what one unit may add to an update, bounded exactly.

A unit's records are averaged, the average is clipped to max_grad_norm, rounded toward zero on the
lattice of privacy/noise.py, and added as integers: no coordinate grows, so the sum's L2
sensitivity is at most max_grad_norm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from appliance.core.errors import PrivacyRefused
from appliance.privacy.noise import LATTICE

_MARGIN = 1e-6  # clip this much below the bound: the products below are rounded, 2**-23 at most
_BLOCK = 2**15  # columns at a time on a CPU: float64 and integer copies stay in the cache


def record_rows(rows: Tensor, sequences: int) -> Tensor:
    """Gradients of records that went through the model as `sequences` rows each, one after another."""
    return rows if sequences == 1 else rows.view(-1, sequences, rows.shape[1]).sum(dim=1)


def unit_means(rows: Tensor, losses: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Means over each unit's records, which follow each other: [n, p], [n] to [units, p], [units]."""
    if len(counts) == len(rows):
        return rows, losses
    count = torch.tensor(counts, device=rows.device)
    owner = torch.repeat_interleave(torch.arange(len(counts), device=rows.device), count)
    summed = torch.zeros(len(counts), rows.shape[1], device=rows.device).index_add(0, owner, rows)
    spread = torch.zeros(len(counts), device=rows.device).index_add(0, owner, losses)
    return summed / count[:, None], spread / count


def clip_to_lattice(gradients: Tensor, max_grad_norm: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Sum of clipped rows in lattice steps of max_grad_norm / 2**20, and which rows were clipped.

    Lattice steps are below 2**24, so float32 holds them exactly, and int32 those of one row.

    Raises:
        PrivacyRefused: a gradient is not finite.
    """
    blocks = torch.split(gradients, gradients.shape[1] if gradients.is_cuda else _BLOCK, dim=1)
    norms = torch.stack([block.double().square_().sum(dim=1) for block in blocks]).sum(dim=0).sqrt_()
    if not bool(torch.isfinite(norms).all()):
        raise PrivacyRefused(
            "A gradient is not a finite number; clipping could not bound it.", "Lower --learning-rate."
        )
    factor = (max_grad_norm * (1 - _MARGIN) / norms.clamp(min=1e-30)).clamp(max=1.0)
    scale = (factor * (LATTICE / max_grad_norm)).float()[:, None]
    # converting to integers rounds toward zero; their sum is taken in int64
    summed = torch.cat([(block * scale).to(torch.int32).sum(dim=0) for block in blocks])
    return summed.cpu().numpy(), (factor < 1).cpu().numpy()
