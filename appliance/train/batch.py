"""Records as one padded batch, and the logits that their losses need: those at learnt tokens only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from appliance.models.encoding import Example


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences padded on the left, so that all end in the last column.

    `tokens`, `mask`, `positions` are [n, t]. Learnt token k belongs to sequence `rows[k]`; the logits
    that predict it are at column `columns[k]` of the last `keep` columns; `targets[k]` is its id.
    `size` is n: one per record, two per preference pair (chosen, then rejected).
    """

    tokens: Tensor
    mask: Tensor
    positions: Tensor
    keep: int
    rows: Tensor
    columns: Tensor
    targets: Tensor
    size: int


def collate(records: Sequence[Example], device: str) -> Batch:
    """Put records into one batch; padding is token 0, masked out, and takes no position."""
    sequences = [part for record in records for part in record.sequences]
    width = max(len(part.tokens) for part in sequences) - 1
    keep = max(len(part.answer) for part in sequences)
    tokens = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros(len(sequences), width, dtype=torch.long)
    rows: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    for row, part in enumerate(sequences):
        ids = part.tokens[:-1]
        tokens[row, width - len(ids) :] = torch.tensor(ids)
        mask[row, width - len(ids) :] = 1
        start = keep - len(part.answer)
        for place, target in enumerate(part.answer):
            if part.learnt is None or part.learnt[place]:
                rows.append(row)
                columns.append(start + place)
                targets.append(target)
    return Batch(
        tokens=tokens.to(device),
        mask=mask.to(device),
        positions=(mask.cumsum(1) - 1).clamp(min=0).to(device),
        keep=keep,
        rows=torch.tensor(rows, device=device),
        columns=torch.tensor(columns, device=device),
        targets=torch.tensor(targets, device=device),
        size=len(sequences),
    )


@contextmanager
def only_last_positions(model: Any, keep: int, width: int) -> Iterator[None]:
    """Compute the last layer's output projection and MLP for the last `keep` of `width` positions.

    Nothing behind them mixes positions, so the logits kept are the same; the other positions, which
    nobody reads, keep their residual. A base of another shape is computed in full, and so is a
    checkpointed one: its backward pass computes the layer again, after this has ended. A last layer
    whose own weights are trained is left to the hooks that watch it.
    """
    last = getattr(getattr(model, "model", None), "layers", [None])[-1]
    if last is None or getattr(last, "gradient_checkpointing", False) or _own_weights_trained(last):
        yield
        return
    found = (getattr(last, "mlp", None), getattr(getattr(last, "self_attn", None), "o_proj", None))
    hooks = []
    for part in (part for part in found if part is not None):
        hooks.append(part.register_forward_pre_hook(lambda _, given: (given[0][:, -keep:].contiguous(),)))
        hooks.append(part.register_forward_hook(lambda _, __, output: pad(output, (0, 0, width - keep, 0))))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _own_weights_trained(layer: Any) -> bool:
    return any(part.requires_grad and ".lora_" not in name for name, part in layer.named_parameters())


def answer_logits(model: Any, batch: Batch) -> Tensor:
    """The logits that predict the learnt tokens, and no others: [learnt tokens, vocabulary], float32.

    An output layer that is trained itself sees whole records, so that its gradients stay apart.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = inner.get_output_embeddings()
    trained = any(part.requires_grad for part in head.parameters())
    with only_last_positions(inner, batch.keep, batch.tokens.shape[1]), ExitStack() as stack:
        if not trained:
            picking = head.register_forward_pre_hook(lambda _, given: (given[0][batch.rows, batch.columns],))
            stack.callback(picking.remove)
        output = model(
            input_ids=batch.tokens,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            logits_to_keep=batch.keep,
            use_cache=False,
        )
    logits: Tensor = output.logits[batch.rows, batch.columns] if trained else output.logits
    return logits.float()
