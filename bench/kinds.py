"""One training step of each kind, from forward pass to AdamW, on a model and its records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Step = Callable[[], None]
Build = Callable[[Any, Sequence[Any], str], Step]


def private(model: Any, records: Sequence[Any], device: str, loss: Any = None) -> Step:
    """What the product does: slots, clipping on the lattice, secure noise, Adam."""
    import torch

    from appliance.privacy.noise import LATTICE, Drawing
    from appliance.train.clip import clip_to_lattice
    from appliance.train.losses import full_loss
    from appliance.train.slots import SlotEngine

    engine = SlotEngine(model, loss or full_loss, device)
    size = sum(part.numel() for part in engine.parameters)
    drawing, apply = Drawing(size, LATTICE, ahead=device != "cpu"), _adam(engine.parameters)

    def step() -> None:
        drawn = drawing.begin()
        gradients, _ = engine.unit_gradients([[record] for record in records])
        total, _ = clip_to_lattice(gradients, 1.0)
        total += drawn()
        apply(torch.from_numpy(total * (1.0 / LATTICE / len(records))).float().to(device))

    return step


def private_every_logit(model: Any, records: Sequence[Any], device: str) -> Step:
    """The private step, but every position's logits are computed, and most losses thrown away.

    The records must be of one length and equally labelled.
    """
    import torch
    from torch.nn.functional import cross_entropy

    labelled = len(records[0].answer)
    whole = [type(record)(prompt=record.tokens[:1], answer=record.tokens[1:]) for record in records]

    def masked(logits: Any, batch: Any, taken: Sequence[Any]) -> Any:
        each = cross_entropy(logits, batch.targets, reduction="none").view(len(taken), -1)
        learnt = torch.arange(each.shape[1], device=each.device) >= each.shape[1] - labelled
        return (each * learnt).sum(dim=1) / labelled

    return private(model, whole, device, masked)


def fused_open(model: Any, records: Sequence[Any], device: str) -> Step:
    """Our engine without privacy: the same node, gradients summed over the batch."""
    from appliance.train.batch import answer_logits, collate
    from appliance.train.losses import full_loss
    from appliance.train.slots import Sink, SlotEngine

    class Summed(Sink):
        def add(self, place: slice, thin: Any, wide: Any, *, turned: bool) -> None:
            product = thin.float().flatten(0, 1).T @ wide.float().flatten(0, 1)
            if turned:
                product = product.T
            self.rows[0, place].view(product.shape).copy_(product)

    class Open(SlotEngine):
        def gradient(self) -> Any:
            batch = collate(records, device)
            self._sink = Summed(1, self._size, device)
            full_loss(answer_logits(self._model, batch), batch, records).mean().backward()
            return self._sink.rows[0]

    engine = Open(model, full_loss, device)
    apply = _adam(engine.parameters)
    return lambda: apply(engine.gradient())


def _adam(parameters: list[Any]) -> Callable[[Any], None]:
    import torch

    optimiser = torch.optim.AdamW(parameters, lr=1e-4)

    def apply(flat: Any) -> None:
        start = 0
        for part in parameters:
            part.grad = flat[start : start + part.numel()].view(part.shape)
            start += part.numel()
        optimiser.step()
        optimiser.zero_grad()

    return apply


def peft(model: Any, records: Sequence[Any], device: str) -> Step:
    """An ordinary trainer's step: the model's own loss, every logit."""
    import torch

    tokens, targets = _plain_batch(records, device)
    optimiser = torch.optim.AdamW([part for part in model.parameters() if part.requires_grad], lr=1e-4)

    def step() -> None:
        model(input_ids=tokens, labels=targets).loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def _plain_batch(records: Sequence[Any], device: str) -> tuple[Any, Any]:
    import torch

    tokens = torch.tensor([record.tokens for record in records])
    targets = tokens.clone()
    for line, record in zip(targets, records, strict=True):
        line[: len(record.prompt)] = -100
    return tokens.to(device), targets.to(device)


def _record_losses(logits: Any, targets: Any) -> Any:
    from torch.nn.functional import cross_entropy

    each = cross_entropy(logits[:, :-1].transpose(1, 2).float(), targets[:, 1:], reduction="none")
    return each.sum(1) / (targets[:, 1:] >= 0).sum(1)


def opacus_hooks(model: Any, records: Sequence[Any], device: str) -> Step:
    """Opacus: per-record gradients by hooks, its optimiser and its own (insecure) noise."""
    import torch
    from opacus.grad_sample.grad_sample_module import GradSampleHooks
    from opacus.optimizers import DPOptimizer

    tokens, targets = _plain_batch(records, device)
    GradSampleHooks(model, batch_first=True, loss_reduction="sum")
    optimiser = _opacus_optimiser(DPOptimizer, model, len(records))

    def step() -> None:
        torch.autograd.backward(_record_losses(model(input_ids=tokens).logits, targets).sum())
        optimiser.step()
        optimiser.zero_grad()

    return step


def _opacus_optimiser(kind: Any, model: Any, records: int) -> Any:
    import torch

    return kind(
        torch.optim.AdamW([part for part in model.parameters() if part.requires_grad], lr=1e-4),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=records,
        loss_reduction="sum",
    )


def opacus_ghost(model: Any, records: Sequence[Any], device: str) -> Step:
    """Opacus: ghost norms, then a second backward pass over the clipped loss."""
    import torch
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
        GradSampleModuleFastGradientClipping,
    )
    from opacus.optimizers import DPOptimizerFastGradientClipping

    tokens, targets = _plain_batch(records, device)
    wrapped = GradSampleModuleFastGradientClipping(model, max_grad_norm=1.0, use_ghost_clipping=True)
    optimiser = _opacus_optimiser(DPOptimizerFastGradientClipping, model, len(records))

    def step() -> None:
        losses = _record_losses(wrapped(input_ids=tokens).logits, targets)
        losses.sum().backward(retain_graph=True)
        optimiser.zero_grad()
        factors = wrapped.get_clipping_coef()
        wrapped.disable_hooks()
        torch.autograd.backward((factors.to(losses.device) * losses).sum())
        wrapped.enable_hooks()
        optimiser.step()
        optimiser.zero_grad()

    return step


KINDS: dict[str, Build] = {
    "private": private,
    "peft step": peft,
    "fused, open": fused_open,
    "Opacus hooks": opacus_hooks,
    "Opacus ghost": opacus_ghost,
}
