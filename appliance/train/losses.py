"""Per-record losses: one number per record that depends on that record alone.

The batch loss of transformers is a mean over all tokens of a batch: there, changing one record's
labels changes every other record's gradient, and a clipped sum no longer has the sensitivity the
noise is made for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, logsigmoid

from appliance.models.encoding import Example, Pair
from appliance.models.trie import LabelTrie
from appliance.train.batch import Batch, answer_logits, collate

Loss = Callable[[Tensor, Batch, Sequence[Example]], Tensor]


def full_loss(logits: Tensor, batch: Batch, records: Sequence[Example]) -> Tensor:
    """Mean cross-entropy over each record's learnt tokens, against the whole vocabulary: [n]."""
    return _summed(cross_entropy(logits, batch.targets, reduction="none"), batch) / _counts(batch)


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

    def loss(logits: Tensor, batch: Batch, records: Sequence[Example]) -> Tensor:
        answers = [part.answer for record in records for part in record.sequences]
        steps = [index.get(answer[:offset], -1) for answer in answers for offset in range(len(answer))]
        where = torch.tensor([place for place, step in enumerate(steps) if step >= 0], device=logits.device)
        mask = barred[[step for step in steps if step >= 0]].to(logits.device)
        among = logits[where].masked_fill(mask, float("-inf"))
        each = cross_entropy(among, batch.targets[where], reduction="none")
        label = torch.zeros(batch.size, device=each.device).index_add(0, batch.rows[where], each)
        return 0.5 * full_loss(logits, batch, records) + 0.5 * label

    return loss


def preference_loss(beta: float) -> Loss:
    """DPO (Rafailov et al. 2023, eq. 7) of each pair: -log sigmoid(beta x (margin gained over the base)).

    The pairs carry the base's own margin (`with_margins`).
    """

    def loss(logits: Tensor, batch: Batch, records: Sequence[Example]) -> Tensor:
        sums = -_summed(cross_entropy(logits, batch.targets, reduction="none"), batch)
        before = [record.margin if isinstance(record, Pair) else 0.0 for record in records]
        gained = sums[0::2] - sums[1::2] - torch.tensor(before, device=logits.device)
        return -logsigmoid(beta * gained)

    return loss


def with_margins(model: Any, pairs: Sequence[Pair], device: str) -> list[Pair]:
    """The pairs with log p(chosen) - log p(rejected) under `model` as it is, in nats; one at a time."""
    found = []
    for pair in pairs:
        batch = collate([pair], device)
        with torch.no_grad():
            sums = -_summed(
                cross_entropy(answer_logits(model, batch), batch.targets, reduction="none"), batch
            )
        found.append(replace(pair, margin=float(sums[0] - sums[1])))
    return found


def distilled_loss(teacher: Any, own: Loss, *, temperature: float, weight: float) -> Loss:
    """`weight` x T^2 KL(teacher || student) at temperature T, and (1 - weight) x `own`, per record.

    Hinton, Vinyals and Dean 2015. Mean over the record's learnt tokens; the teacher is not trained.
    """

    def loss(logits: Tensor, batch: Batch, records: Sequence[Example]) -> Tensor:
        with torch.no_grad():
            wanted = log_softmax(answer_logits(teacher, batch) / temperature, dim=1)
        here = log_softmax(logits / temperature, dim=1)
        apart = temperature**2 * (wanted.exp() * (wanted - here)).sum(dim=1)
        return weight * _summed(apart, batch) / _counts(batch) + (1 - weight) * own(logits, batch, records)

    return loss


def _summed(each: Tensor, batch: Batch) -> Tensor:
    """Sums of token figures [learnt tokens] by sequence [size]."""
    return torch.zeros(batch.size, device=each.device).index_add(0, batch.rows, each)


def _counts(batch: Batch) -> Tensor:
    return torch.bincount(batch.rows, minlength=batch.size).clamp(min=1)
