"""Per-record gradients of LoRA linears in the ordinary backward pass.

For y = W x + s B A x and g = dL/dy of one record (t positions): dB = s g^T (x A^T) and
dA = s (g B)^T x, two small products that an ordinary backward pass computes as well, only summed
over the batch. Here they are written per record into one buffer [records, parameters]. Each LoRA
linear has its slot there, by place and not by saved tensor, so that checkpointed layers, whose
tensors come back as other objects, land in the right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from appliance.core.errors import PrivacyRefused
from appliance.models.encoding import Example
from appliance.train.batch import answer_logits, collate
from appliance.train.clip import record_rows, unit_means
from appliance.train.losses import Loss


class Sink:
    """Where the gradients of one batch go: rows [records, parameters], float32."""

    def __init__(self, records: int, parameters: int, device: str) -> None:
        self.rows = torch.empty(records, parameters, device=device)
        self.filled: set[int] = set()

    def add(self, place: slice, thin: Tensor, wide: Tensor, *, turned: bool) -> None:
        """Add thin^T wide of each record, from [n, t, rank] and [n, t, width], at the columns `place`.

        `turned` stores it as [width, rank]. The product is always taken this way round: BLAS is slow
        at the other one, of a tall by a thin matrix.
        """
        product = torch.bmm(thin.float().transpose(1, 2), wide.float())
        if turned:
            product = product.transpose(1, 2)
        columns = self.rows[:, place].view(product.shape)
        if place.start in self.filled:  # a layer used twice adds up
            columns += product
        else:
            columns.copy_(product)
        self.filled.add(place.start)


@dataclass(frozen=True)
class Slot:
    """One LoRA linear: its columns in the buffer (None: that matrix is not trained) and its scale."""

    a: slice | None
    b: slice | None
    scale: float


class _Branch(torch.autograd.Function):
    """s B A x: what LoRA adds to any layer, whatever the layer is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor, slot: Slot, sink: Sink) -> Tensor:
        inner = x.to(a.dtype) @ a.T
        ctx.save_for_backward(x, a, b, inner)
        ctx.slot, ctx.sink = slot, sink
        return ((inner @ b.T) * slot.scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, a, b, inner = ctx.saved_tensors
        back = _keep(ctx, g.to(a.dtype), x, b, inner)
        dx = (back @ a).to(x.dtype) if ctx.needs_input_grad[0] else None
        return dx, None, None, None, None


class _Fused(torch.autograd.Function):
    """W x + bias + s B A x in one node: half the elementwise passes of the two added up by autograd."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, slot: Slot, sink: Sink
    ) -> Tensor:
        inner = x.to(a.dtype) @ a.T
        ctx.save_for_backward(x, w, a, b, inner)
        ctx.slot, ctx.sink = slot, sink
        y = torch.nn.functional.linear(x, w, bias)
        return _plus(y, inner, b.T, slot.scale)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w, a, b, inner = ctx.saved_tensors
        back = _keep(ctx, g.to(a.dtype), x, b, inner)
        dx = _plus(g @ w, back, a, 1.0) if ctx.needs_input_grad[0] else None
        return dx, None, None, None, None, None, None


def _keep(ctx: Any, g: Tensor, x: Tensor, b: Tensor, inner: Tensor) -> Tensor:
    """Put both gradients into the sink; returns s g B, the gradient at A's output."""
    slot, sink = ctx.slot, ctx.sink
    if slot.b is not None:
        sink.add(slot.b, inner * slot.scale, g, turned=True)
    back: Tensor = (g @ b) * slot.scale
    if slot.a is not None:
        sink.add(slot.a, back, x, turned=False)
    return back


def _plus(y: Tensor, left: Tensor, right: Tensor, scale: float) -> Tensor:
    """y + scale left right, in place of y where the number formats allow it."""
    if y.dtype == left.dtype:
        y.flatten(0, -2).addmm_(left.flatten(0, -2), right, alpha=scale)
    else:
        y.add_((left @ right).to(y.dtype), alpha=scale)
    return y


class SlotEngine:
    """Unit gradients of a peft model whose only trainable parameters are LoRA matrices of linears.

    Raises:
        PrivacyRefused: something else is trainable, or an adapter's gradients are not these (`refusal`).
    """

    def __init__(self, model: Any, loss: Loss, device: str) -> None:
        if reason := refusal(model):
            raise PrivacyRefused(
                f"This model cannot be trained privately: {reason}.", "Train plain LoRA on linear layers."
            )
        self._model, self._loss, self._device = model, loss, device
        self.parameters = [part for part in model.parameters() if part.requires_grad]
        self._size = sum(part.numel() for part in self.parameters)
        self._places = _places(self.parameters)
        self._layers = _lora_layers(model)
        self._sink = Sink(0, self._size, device)
        for layer in self._layers:
            self._attach(layer)

    def unit_gradients(self, groups: Sequence[Sequence[Example]]) -> tuple[Tensor, Tensor]:
        """See train/engine.py.

        Raises:
            PrivacyRefused: a trainable matrix took no part, so its gradients are not known.
        """
        records = [record for group in groups for record in group]
        batch = collate(records, self._device)
        self._sink = Sink(batch.size, self._size, self._device)
        losses = self._loss(answer_logits(self._model, batch), batch, records)
        torch.autograd.backward(losses.sum())
        if len(self._sink.filled) < len(self.parameters):
            raise PrivacyRefused(
                "A trainable parameter took no part, so its gradients cannot be bounded.",
                "This base cannot be trained privately with these targets.",
            )
        rows = record_rows(self._sink.rows, len(records[0].sequences))
        return unit_means(rows, losses.detach(), [len(group) for group in groups])

    def close(self) -> None:
        """Give peft its own forward back."""
        for layer in self._layers:
            vars(layer).pop("forward", None)

    def _attach(self, layer: Any) -> None:
        (name,) = layer.active_adapters
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        slot = Slot(a=self._places.get(id(a)), b=self._places.get(id(b)), scale=float(layer.scaling[name]))
        base, dropout = layer.get_base_layer(), layer.lora_dropout[name]

        def fused(x: Tensor) -> Tensor:
            result: Tensor = _Fused.apply(x, base.weight, base.bias, a, b, slot, self._sink)  # type: ignore[no-untyped-call]
            return result

        def branched(x: Tensor) -> Tensor:
            result: Tensor = base(x) + _Branch.apply(dropout(x), a, b, slot, self._sink)  # type: ignore[no-untyped-call]
            return result

        plain = type(base) is torch.nn.Linear
        layer.forward = fused if plain and isinstance(dropout, torch.nn.Identity) else branched


def refusal(model: Any) -> str:
    """Why slots do not cover all that is trainable in `model`; empty when they do."""
    covered: set[int] = set()
    for layer in _lora_layers(model):
        if wrong := _wrong(layer):
            return wrong
        (name,) = layer.active_adapters
        covered |= {id(layer.lora_A[name].weight), id(layer.lora_B[name].weight)}
    for name, part in model.named_parameters():
        if part.requires_grad and id(part) not in covered:
            return f"{name} is trainable and is not LoRA of a linear layer"
    return ""


def _places(parameters: Sequence[Tensor]) -> dict[int, slice]:
    """Each parameter's columns in a flat gradient, in the order of `parameters`."""
    places, start = {}, 0
    for part in parameters:
        places[id(part)] = slice(start, start + part.numel())
        start += part.numel()
    return places


def _lora_layers(model: Any) -> list[Any]:
    from peft.tuners.lora.layer import LoraLayer

    return [part for part in model.modules() if isinstance(part, LoraLayer)]


def _wrong(layer: Any) -> str:
    """Why this LoRA layer does not compute base(x) + scale B A dropout(x); empty when it does."""
    from transformers.pytorch_utils import Conv1D

    if len(layer.active_adapters) != 1 or layer.disable_adapters:
        return "not exactly one adapter is active"
    name = layer.active_adapters[0]
    if layer.merged:
        return "it is merged into its base"
    if layer.lora_variant:
        return "it is a variant of LoRA, such as DoRA"
    if name not in layer.lora_A or not isinstance(layer.get_base_layer(), (torch.nn.Linear, Conv1D)):
        return f"{type(layer.get_base_layer()).__name__} is not a linear layer"
    if layer.lora_B[name].bias is not None:
        return "its B has a bias"
    return ""
