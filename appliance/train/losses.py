"""Per-record losses: one number per record that depends on that record alone.

The batch loss of transformers is a mean over all tokens of a batch: there, changing one record's
labels changes every other record's gradient, and a clipped sum no longer has the sensitivity the
noise is made for. Logits are computed for the answer's end of the batch only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from appliance.models.encoding import Encoded
from appliance.models.trie import LabelTrie


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Records padded on the left, so that all answers end in the last column.

    `tokens`, `mask`, `positions` are [n, t]. Answer token k belongs to record `rows[k]`; the logits
    that predict it are at column `columns[k]` of the last `keep` columns; `targets[k]` is its id.
    """

    tokens: Tensor
    mask: Tensor
    positions: Tensor
    keep: int
    rows: Tensor
    columns: Tensor
    targets: Tensor
    size: int


Loss = Callable[[Tensor, Batch, Sequence[Encoded]], Tensor]


def collate(records: Sequence[Encoded], device: str) -> Batch:
    """Put records into one batch; padding is token 0, masked out, and takes no position."""
    width = max(len(record.tokens) for record in records) - 1
    keep = max(len(record.answer) for record in records)
    tokens = torch.zeros(len(records), width, dtype=torch.long)
    mask = torch.zeros(len(records), width, dtype=torch.long)
    rows: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    for row, record in enumerate(records):
        ids = record.tokens[:-1]
        tokens[row, width - len(ids) :] = torch.tensor(ids)
        mask[row, width - len(ids) :] = 1
        rows += [row] * len(record.answer)
        columns += range(keep - len(record.answer), keep)
        targets += record.answer
    return Batch(
        tokens=tokens.to(device),
        mask=mask.to(device),
        positions=(mask.cumsum(1) - 1).clamp(min=0).to(device),
        keep=keep,
        rows=torch.tensor(rows, device=device),
        columns=torch.tensor(columns, device=device),
        targets=torch.tensor(targets, device=device),
        size=len(records),
    )


@contextmanager
def only_last_positions(model: Any, keep: int, width: int) -> Iterator[None]:
    """Compute the last layer's output projection and MLP for the last `keep` of `width` positions.

    Nothing behind them mixes positions, so the logits kept are the same; the other positions, which
    nobody reads, keep their residual. A base of another shape is computed in full, and so is a
    checkpointed one: its backward pass computes the layer again, after this has ended.
    """
    layers = getattr(getattr(model, "model", None), "layers", None)
    if layers is None or getattr(layers[-1], "gradient_checkpointing", False):
        yield
        return
    last = layers[-1]
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


def answer_logits(model: Any, batch: Batch) -> Tensor:
    """The logits that predict the answer tokens, and no others: [answer tokens, vocabulary], float32.

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


def full_loss(logits: Tensor, batch: Batch, records: Sequence[Encoded]) -> Tensor:
    """Mean cross-entropy over each record's answer tokens, against the whole vocabulary: [n]."""
    each = cross_entropy(logits, batch.targets, reduction="none")
    count = torch.bincount(batch.rows, minlength=batch.size)
    return torch.zeros(batch.size, device=each.device).index_add(0, batch.rows, each) / count


def label_loss(trie: LabelTrie, vocabulary: int) -> Loss:
    """Half the full loss, half the cross-entropy among the labels still possible.

    The second half is -log of the probability that a walk down the label trie ends at the right
    label; it decides constrained accuracy, the first half makes free text right too.
    """
    prefixes = {tokens[:length] for tokens in trie.sequences.values() for length in range(len(tokens))}
    choices = {prefix: trie.allowed(prefix) for prefix in sorted(prefixes)}
    index = {prefix: place for place, prefix in enumerate(p for p in choices if len(choices[p]) > 1)}
    barred = torch.ones(len(index), vocabulary, dtype=torch.bool)
    for prefix, place in index.items():
        barred[place, list(choices[prefix])] = False

    def loss(logits: Tensor, batch: Batch, records: Sequence[Encoded]) -> Tensor:
        steps = [
            index.get(record.answer[:offset], -1)
            for record in records
            for offset in range(len(record.answer))
        ]
        where = torch.tensor([place for place, step in enumerate(steps) if step >= 0], device=logits.device)
        mask = barred[[step for step in steps if step >= 0]].to(logits.device)
        among = logits[where].masked_fill(mask, float("-inf"))
        each = cross_entropy(among, batch.targets[where], reduction="none")
        label = torch.zeros(batch.size, device=each.device).index_add(0, batch.rows[where], each)
        return 0.5 * full_loss(logits, batch, records) + 0.5 * label

    return loss
