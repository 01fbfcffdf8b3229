"""The clipped sum: what one unit may add to an update, bounded exactly.

The engine here reads per-record gradients from Opacus hooks; another engine only has to fill
`unit_gradients` faster. A unit's records are averaged, the average is clipped to max_grad_norm,
rounded toward zero on the lattice of privacy/noise.py, and added as integers: no coordinate grows,
so the sum's L2 sensitivity is at most max_grad_norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from appliance.core.errors import PrivacyRefused
from appliance.models.encoding import Encoded
from appliance.privacy.noise import LATTICE
from appliance.train.losses import Loss, answer_logits, collate

_MARGIN = 1e-6  # float32 gradients carry about this relative error; clip below the bound by it


class HookEngine:
    """Per-record gradients of a model's trainable parameters, by the hooks of Opacus.

    Raises:
        PrivacyRefused: something trainable is not covered by the hooks.
    """

    def __init__(self, model: Any, loss: Loss, device: str) -> None:
        from opacus.grad_sample.grad_sample_module import GradSampleHooks

        self._model, self._loss, self._device = model, loss, device
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        try:
            self._hooks = GradSampleHooks(model, batch_first=True, loss_reduction="sum", strict=True)
        except NotImplementedError as problem:
            raise PrivacyRefused(
                "This base has trainable layers without per-record gradients.",
                "Train LoRA on linear layers only.",
            ) from problem

    def unit_gradients(self, groups: Sequence[Sequence[Encoded]]) -> tuple[Tensor, Tensor]:
        """Mean gradient of each unit [units, parameters] and each unit's mean loss [units]."""
        records = [record for group in groups for record in group]
        batch = collate(records, self._device)
        losses = self._loss(answer_logits(self._model, batch), batch, records)
        torch.autograd.backward(losses.sum())
        flat = torch.cat([self._taken(parameter, len(records)) for parameter in self.parameters], dim=1)
        owner = torch.tensor([place for place, group in enumerate(groups) for _ in group], device=flat.device)
        count = torch.tensor([len(group) for group in groups], device=flat.device)
        summed = torch.zeros(len(groups), flat.shape[1], device=flat.device).index_add(0, owner, flat)
        spread = torch.zeros(len(groups), device=flat.device).index_add(0, owner, losses.detach())
        return summed / count[:, None], spread / count

    def close(self) -> None:
        """Take the hooks out, so that the model can be saved and used as usual."""
        self._hooks.cleanup()

    def _taken(self, parameter: Any, records: int) -> Tensor:
        sample = getattr(parameter, "grad_sample", None)
        if sample is None or sample.shape[0] != records:
            raise PrivacyRefused(
                "A trainable parameter took part without a per-record gradient.",
                "This base cannot be trained privately with these targets.",
            )
        parameter.grad_sample = None
        parameter.grad = None
        flat: Tensor = sample.reshape(records, -1).float()
        return flat


def clip_to_lattice(gradients: Tensor, max_grad_norm: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Sum of clipped rows in lattice steps of max_grad_norm / 2**20, and which rows were clipped.

    Raises:
        PrivacyRefused: a gradient is not finite.
    """
    rows = gradients.double().cpu()
    norms = rows.norm(dim=1)
    if not bool(torch.isfinite(norms).all()):
        raise PrivacyRefused(
            "A gradient is not a finite number; clipping could not bound it.", "Lower --learning-rate."
        )
    factor = (max_grad_norm * (1 - _MARGIN) / norms.clamp(min=1e-30)).clamp(max=1.0)
    steps = (rows * factor[:, None] * (LATTICE / max_grad_norm)).trunc().to(torch.int64)
    return steps.sum(dim=0).numpy(), (factor < 1).numpy()


def check_engine(engine: HookEngine, sample: Sequence[Encoded]) -> None:
    """Check that records taken together and one by one give the same gradients.

    Raises:
        PrivacyRefused: they do not: the records of a batch influence each other.
    """
    together, _ = engine.unit_gradients([[record] for record in sample])
    alone = torch.cat([engine.unit_gradients([[record]])[0] for record in sample])
    gap = (together - alone).norm(dim=1) / alone.norm(dim=1).clamp(min=1e-12)
    if float(gap.max()) > 1e-3:
        raise PrivacyRefused(
            "In this base one record's gradient depends on the others of its batch.",
            "Use a base without batch statistics or packed attention.",
        )
