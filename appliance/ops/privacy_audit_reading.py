"""What a model makes of records it may have been trained on: losses, Min-K%++, what it recites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.evaluate.score import Row, Scorer, batches
from appliance.models.encoding import Encoded
from appliance.privacy.attacks.extraction import LEAST_ANSWER, Following, cut_points
from appliance.privacy.attacks.membership import LEAST_TOKENS, log_softmax, min_k_plus

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One entry a row. `loss`: mean nats a token of the answer; `min_k` of answers with 20 tokens or
    more. Both are NaN for what does not fit. `recited`: by row, whether it was, near-verbatim.
    """

    loss: Floats
    min_k: Floats
    recited: dict[int, bool]


def read_rows(
    scorer: Scorer, rows: Sequence[Row], recite: Sequence[int], told: Callable[[int], None]
) -> Reading:
    """Read all rows; those in `recite` are also begun, to see whether the model goes on as they do."""
    loss, min_k = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    work = {at: row.tokens for at, row in enumerate(rows) if row.tokens is not None}
    sizes = {at: (len(part.tokens), len(part.answer)) for at, part in work.items()}
    done = 0
    for batch in batches(sizes, scorer):
        parts = [work[at] for at in batch]
        blocks = scorer.logits([[*p.prompt, *p.answer[:-1]] for p in parts], [len(p.answer) for p in parts])
        for at, part, block in zip(batch, parts, blocks, strict=True):
            loss[at] = -log_softmax(block)[np.arange(len(part.answer)), list(part.answer)].mean()
            if len(part.answer) >= LEAST_TOKENS:
                min_k[at] = min_k_plus(block, part.answer)
        done += len(batch)
        told(done)
    return Reading(loss=loss, min_k=min_k, recited=recited(scorer, {at: work[at] for at in recite}))


def long_enough(row: Row) -> bool:
    """Whether the answer is long enough to be recited."""
    return row.tokens is not None and len(row.tokens.answer) >= LEAST_ANSWER


def recited(scorer: Scorer, parts: Mapping[int, Encoded]) -> dict[int, bool]:
    """Whether greedy decoding goes on as each record does, after its prompt and part of its answer."""
    texts: dict[int, list[int]] = {}
    follow: dict[int, Following] = {}
    for at, part in parts.items():
        given, asked = cut_points(len(part.answer))
        texts[at] = [*part.prompt, *part.answer[:given]]
        follow[at] = Following(part.answer[given : given + asked])
    going = set(parts)
    while going:
        for batch in list(batches({at: (len(texts[at]), 1) for at in going}, scorer)):
            for at, block in zip(
                batch, scorer.logits([texts[at] for at in batch], [1] * len(batch)), strict=True
            ):
                token = int(block[0].argmax())
                texts[at].append(token)
                follow[at].add(token)
        going = {at for at in going if not (follow[at].done or follow[at].lost)}
    return {at: one.done and one.near for at, one in follow.items()}
