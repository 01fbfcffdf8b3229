"""Logits at learnt tokens only, where the last third of each record is learnt.

`private/every logit` is our step against our step with all logits computed and the losses of the
first two thirds thrown away, as a labels mask does; `private/peft step` has ordinary peft's own loss.
`logits and loss` times that part alone: output layer, cross-entropy, and back to the hidden states.
What it is worth for a whole step depends on how much of the model the output layer is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.kinds import peft, private, private_every_logit
from bench.shapes import LENGTH, SHAPES, Shape, base_model, random_records, twin
from bench.table import against, in_turns, show

_ROUNDS = {"h256x4": 9, "SmolLM2 width, 2 layers": 9, "SmolLM2-135M": 3, "Qwen2.5-0.5B": 2}


def run(options: Any) -> None:
    """Time the shapes, or those named in --sets."""
    import torch

    torch.set_num_threads(1)
    asked = [name for name in options.sets.split(",") if name in SHAPES]
    for name in asked or _ROUNDS:
        shape, rounds = SHAPES[name], options.rounds or _ROUNDS.get(name, 3)
        records = random_records(shape, LENGTH // 3, options.records)
        base = base_model(shape)
        works = {
            "private": private(twin(base), records, "cpu"),
            "every logit": private_every_logit(twin(base), records, "cpu"),
            "peft step": peft(twin(base), records, "cpu"),
        }
        taken = in_turns(works, rounds)
        case = f"{name} x{len(records)}, third"
        part = in_turns(
            {
                "learnt": _head(shape, len(records), LENGTH // 3),
                "every": _head(shape, len(records), LENGTH),
            },
            max(rounds, 5),
        )
        learnt = against("logits", case, part, "learnt", "every")
        show(
            [
                against("logits", case, taken, "private", "every logit"),
                against("logits", case, taken, "private", "peft step"),
                learnt | {"metric": "logits and loss, learnt/every"},
            ],
            options.json,
        )


def _head(shape: Shape, records: int, labelled: int) -> Callable[[], None]:
    import torch
    from torch.nn.functional import cross_entropy, linear

    weight = torch.randn(shape.vocab, shape.hidden)
    hidden = torch.randn(records * labelled, shape.hidden, requires_grad=True)
    targets = torch.randint(shape.vocab, (records * labelled,))

    def work() -> None:
        torch.autograd.grad(cross_entropy(linear(hidden, weight), targets), hidden)

    return work
