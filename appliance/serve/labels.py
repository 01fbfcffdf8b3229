"""Answers of label models: the walk down the trie of their labels, with the odds of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.core.errors import EngineFailed
from appliance.models.task import Task
from appliance.models.trie import LabelTrie
from appliance.serve import prompts
from appliance.serve.engine import Engine
from appliance.serve.header import Header


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A label, the product of its steps' probabilities, and the number of its tokens."""

    label: str
    confidence: float
    tokens: int


async def label_trie(engine: Engine, header: Header, task: Task) -> LabelTrie:
    """The trie of the task's labels as this model spells them: one space, then the label."""
    return LabelTrie(
        {label: await prompts.plain_tokens(engine, header, f" {label.strip()}") for label in task.labels},
        header.eos,
    )


async def pick_label(
    engine: Engine,
    trie: LabelTrie,
    prompt: Sequence[int],
    *,
    owner: str,
    shared: int = 0,
    adapter: int | None = None,
) -> Labelled:
    """The greedy label after `prompt`; `owner`, `shared` and `adapter` as Engine.choose has them.

    Raises:
        EngineFailed: no answer, or the model computes what is no number.
    """
    walked: tuple[int, ...] = ()
    odds = 0.0
    while True:
        label = trie.label(walked)
        if label is not None:
            return Labelled(label=label, confidence=math.exp(odds), tokens=len(walked))
        allowed = trie.allowed(walked)
        best = 0
        if len(allowed) > 1:
            found = await engine.choose(
                [*prompt, *walked], allowed, owner=owner, shared=shared, adapter=adapter
            )
            best = max(range(len(allowed)), key=lambda i: found[i])
            if not math.isfinite(found[best]):  # any label would do then, with any confidence
                raise EngineFailed(
                    "A model's logits are no numbers.", "Quantise it again, or import it again."
                )
            odds += found[best]
        walked += (allowed[best],)
