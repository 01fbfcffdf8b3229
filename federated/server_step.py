"""What the coordinator does with an average: the next adapter from this one (Reddi et al. 2021).

FedAvg adds it. FedAdam takes it as a gradient (with its sign turned) for an Adam step without bias
correction; its two moments are part of a round's checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from federated.layout import Array

_BETA_1, _BETA_2, _TAU = 0.9, 0.99, 1e-3  # the paper's choice


@dataclass(frozen=True, kw_only=True)
class Moments:
    """FedAdam's state, of the adapter's length; zeros before the first round."""

    first: Array
    second: Array


def fedavg(adapter: Array, change: Array, learning_rate: float = 1.0) -> Array:
    """The adapter plus `learning_rate` times the average change."""
    return (adapter + np.float32(learning_rate) * change).astype(np.float32)


def fedadam(
    adapter: Array, change: Array, moments: Moments | None, learning_rate: float
) -> tuple[Array, Moments]:
    """The adapter after one Adam step along the average change, and the new moments."""
    before = moments or Moments(first=np.zeros_like(adapter), second=np.zeros_like(adapter))
    first = np.float32(_BETA_1) * before.first + np.float32(1 - _BETA_1) * change
    second = np.float32(_BETA_2) * before.second + np.float32(1 - _BETA_2) * change * change
    step = np.float32(learning_rate) * first / (np.sqrt(second) + np.float32(_TAU))
    return (adapter + step).astype(np.float32), Moments(first=first, second=second)
