"""Per-record gradients by the hooks of Opacus, for what the slots of slots.py do not cover."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from appliance.core.errors import PrivacyRefused
from appliance.models.encoding import Example
from appliance.train.batch import answer_logits, collate
from appliance.train.clip import record_rows, unit_means
from appliance.train.losses import Loss


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
                "Train with --method lora.",
            ) from problem

    def unit_gradients(self, groups: Sequence[Sequence[Example]]) -> tuple[Tensor, Tensor]:
        """Mean gradient of each unit [units, parameters] and each unit's mean loss [units]."""
        records = [record for group in groups for record in group]
        batch = collate(records, self._device)
        try:
            losses = self._loss(answer_logits(self._model, batch), batch, records)
            torch.autograd.backward(losses.sum())
        except BaseException:
            self._forget()
            raise
        rows = torch.cat([self._taken(parameter, batch.size) for parameter in self.parameters], dim=1)
        rows = record_rows(rows, len(records[0].sequences))
        return unit_means(rows, losses.detach(), [len(group) for group in groups])

    def close(self) -> None:
        """Take the hooks out, so that the model can be saved and used as usual."""
        self._hooks.cleanup()

    def _forget(self) -> None:
        """Drop what a pass that failed has left, which Opacus would add to the next one's."""
        for module in self._model.modules():
            for name in ("activations", "max_batch_len"):
                vars(module).pop(name, None)
        for parameter in self.parameters:
            parameter._forward_counter = 0
            parameter.grad_sample = parameter.grad = None
            vars(parameter).pop("_current_grad_sample", None)

    def _taken(self, parameter: Any, records: int) -> Tensor:
        sample = getattr(parameter, "grad_sample", None)
        if sample is None or sample.shape[0] != records:
            raise PrivacyRefused(
                "A trainable parameter took no part, so its gradients cannot be bounded.",
                "This base cannot be trained privately with these targets.",
            )
        parameter.grad_sample = None
        parameter.grad = None
        flat: Tensor = sample.reshape(records, -1).float()
        return flat
