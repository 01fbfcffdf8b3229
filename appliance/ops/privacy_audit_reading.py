"""What a model makes of records it may have been trained on: losses, Min-K%++, what it recites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.evaluate.score import Row, Scorer, batches
from appliance.models.encoding import Encoded
from appliance.privacy.attacks.extraction import LEAST_ANSWER, SAMPLES, Following, cut_points
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


def recited(
    scorer: Scorer, parts: Mapping[int, Encoded], samples: int = SAMPLES, seed: int = 0
) -> dict[int, bool]:
    """Whether the model goes on as each record does, after its prompt and part of its answer.

    It has one greedy try and `samples` at temperature 1; a try is given up where it cannot come near.
    """
    random = np.random.default_rng(seed)
    tries = [(at, turn) for at in parts for turn in range(1 + samples)]
    texts: list[list[int]] = []
    follow: list[Following] = []
    for at, _ in tries:
        given, asked = cut_points(len(parts[at].answer))
        texts.append([*parts[at].prompt, *parts[at].answer[:given]])
        follow.append(Following(parts[at].answer[given : given + asked]))
    going = set(range(len(tries)))
    while going:
        for batch in list(batches({one: (len(texts[one]), 1) for one in going}, scorer)):
            blocks = scorer.logits([texts[one] for one in batch], [1] * len(batch))
            for one, block in zip(batch, blocks, strict=True):
                noise = random.gumbel(size=block.shape[1]) if tries[one][1] else 0.0
                token = int((block[0] + noise).argmax())  # the largest of them is a draw by softmax
                texts[one].append(token)
                follow[one].add(token)
        going = {one for one in going if not (follow[one].done or follow[one].lost)}
    near = {tries[one][0] for one, told in enumerate(follow) if told.done and told.near}
    return {at: at in near for at in parts}
