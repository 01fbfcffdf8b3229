"""Which engine computes per-record gradients, and a check that it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from appliance.core.errors import PrivacyRefused
from appliance.models.encoding import Example
from appliance.train.losses import Loss

_ROUNDING = {"float32": 1e-3, "bfloat16": 0.1}  # relative; eight bits of mantissa round at every layer


class Engine(Protocol):
    """Gradients of units, for `parameters` in this order, flat."""

    parameters: list[Tensor]

    def unit_gradients(self, groups: Sequence[Sequence[Example]]) -> tuple[Tensor, Tensor]:
        """Mean gradient of each unit [units, parameters] and each unit's mean loss [units]."""

    def close(self) -> None:
        """Leave the model as it was found, so that it can be saved and used as usual."""


def engine_for(model: Any, loss: Loss, device: str) -> Engine:
    """Slots for LoRA on linear layers, the hooks of Opacus for everything else.

    Raises:
        PrivacyRefused: neither covers all that is trainable.
    """
    from appliance.train.hooks import HookEngine
    from appliance.train.slots import SlotEngine, refusal

    return HookEngine(model, loss, device) if refusal(model) else SlotEngine(model, loss, device)


def check_engine(engine: Engine, sample: Sequence[Example], precision: str = "float32") -> None:
    """Check that records taken together and one by one give the same gradients, up to rounding.

    Raises:
        PrivacyRefused: they do not: the records of a batch influence each other.
    """
    together, _ = engine.unit_gradients([[record] for record in sample])
    alone = torch.cat([engine.unit_gradients([[record]])[0] for record in sample])
    gap = (together - alone).norm(dim=1) / alone.norm(dim=1).clamp(min=1e-12)
    if float(gap.max()) > _ROUNDING[precision]:
        raise PrivacyRefused(
            "In this base one record's gradient depends on the others of its batch.",
            "Use a base without batch statistics or packed attention.",
        )
