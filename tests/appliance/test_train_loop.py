"""What goes wrong in a step: memory that runs out, gradients that are no numbers, no better validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from appliance.core.errors import Diverged, NoRoom
from appliance.models.encoding import Encoded, Example
from appliance.train import loop
from appliance.train.optimiser import Optimiser
from appliance.train.plan import Plan
from appliance.train.run import best_step, looked_enough
from appliance.train.settings import Settings

WIDTH = 64
UNITS = 40


class KnownGradients:
    """Unit k's gradient is row k of a fixed table; more than `room` units at once do not fit into memory."""

    def __init__(self, room: int = 10**9, bad: Sequence[int] = (), words: str = "out of memory") -> None:
        self.parameters = [torch.zeros(WIDTH)]
        self.table = torch.randn(UNITS, WIDTH, generator=torch.Generator().manual_seed(0))
        self.table[list(bad)] = float("nan")
        self.room, self.words, self.sizes = room, words, list[int]()

    def unit_gradients(self, groups: Sequence[Sequence[Example]]) -> tuple[torch.Tensor, torch.Tensor]:
        self.sizes.append(len(groups))
        if len(groups) > self.room:
            raise RuntimeError(f"DefaultCPUAllocator: {self.words}: you tried to allocate 9 bytes")
        rows = self.table[[group[0].sequences[0].prompt[0] for group in groups]]
        return rows, rows.mean(dim=1)

    def close(self) -> None:
        """Nothing to leave."""


GROUPS = [[Encoded(prompt=(unit,), answer=(1,))] for unit in range(UNITS)]


def plan(noise: float = 1e-3, rate: float = 1.0) -> Plan:
    return Plan(
        steps=4,
        learning_rate=1e-2,
        weight_decay=0.0,
        units=UNITS,
        records=UNITS,
        unit="patient",
        sample_rate=rate,
        sampling="unit",
        expected_batch=UNITS * rate,
        noise_multiplier=noise,
        delta=1e-4,
    )


def first_update(engine: KnownGradients) -> loop.Update:
    return loop.private_update(engine, GROUPS, plan(), Settings(max_grad_norm=1.0))()


@pytest.mark.parametrize("words", ["can't allocate memory", "CUDA out of memory"])
def test_when_memory_runs_out_smaller_pieces_give_the_same_sum(words: str) -> None:
    whole = first_update(KnownGradients())
    engine = KnownGradients(room=3, words=words)
    update = loop.private_update(engine, GROUPS, plan(), Settings(max_grad_norm=1.0))
    pieces = update()
    assert (whole.pieces, pieces.pieces) == (1, 16)
    assert pieces.units == UNITS
    assert float((pieces.gradient - whole.gradient).abs().max()) < 1e-3, "but for the noise"
    engine.sizes.clear()
    update()
    assert max(engine.sizes) <= 3, "the next step begins with what fitted"


def test_a_unit_that_does_not_fit_alone_and_other_failures_are_told() -> None:
    with pytest.raises(NoRoom, match="single unit"):
        first_update(KnownGradients(room=0))
    with pytest.raises(RuntimeError, match="shape"):
        first_update(KnownGradients(room=0, words="shape mismatch"))


def test_a_gradient_that_is_no_number_adds_nothing_and_is_counted() -> None:
    found = first_update(KnownGradients(bad=(3, 7)))
    wanted = KnownGradients().table
    wanted = wanted / wanted.norm(dim=1, keepdim=True).clamp(min=1.0)
    rest = [unit for unit in range(UNITS) if unit not in (3, 7)]
    assert found.lost == 2 and found.units == UNITS
    assert torch.allclose(found.gradient, wanted[rest].sum(0) / UNITS, atol=1e-3)
    assert np.isfinite(found.loss)


class OneLayer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(WIDTH))


def run(updates: list[loop.Update], **more: Any) -> tuple[list[int], torch.Tensor]:
    model, saved = OneLayer(), list[int]()
    feed = iter(updates)
    loop.train(
        lambda: next(feed),
        Optimiser(model, plan()),
        start=0,
        steps=4,
        charge=None,
        saved=saved.append,
        tell=lambda facts: None,
        **more,
    )
    return saved, model.weight


def update(gradient: float = 1.0, loss: float = 1.0, lost: int = 0) -> loop.Update:
    return loop.Update(
        gradient=torch.full((WIDTH,), gradient), loss=loss, units=5, clipped=0.0, tokens=9, lost=lost
    )


@pytest.mark.parametrize(
    "bad",
    [update(loss=float("nan")), update(gradient=float("inf")), update(lost=5)],
    ids=["loss", "weights", "every unit"],
)
def test_a_run_that_diverges_stops_before_it_is_saved(bad: loop.Update) -> None:
    saved: list[int] = []
    feed = iter([update(), update(), bad])
    with pytest.raises(Diverged, match="Step 3"):
        loop.train(
            lambda: next(feed),
            Optimiser(OneLayer(), plan()),
            start=0,
            steps=4,
            charge=None,
            saved=saved.append,
            tell=lambda facts: None,
        )
    assert saved == [1, 2]


def test_a_run_can_end_early() -> None:
    answers = iter([False, False, True])
    saved, _ = run([update()] * 4, enough=lambda: next(answers))
    assert saved == [1, 2]
    assert run([update()] * 4, enough=lambda: True)[0] == [], "it had enough before it was begun again"
    assert run([update()] * 4)[0] == [1, 2, 3, 4]


def test_early_stopping_counts_validations_since_the_best_one() -> None:
    losses = [3.0, 2.0, 2.5, 2.2]
    history: list[dict[str, Any]] = []
    for place, loss in enumerate(losses):
        history += [{"step": 10 * place + 5}, {"step": 10 * place + 10, "validation_loss": loss}]
    assert best_step(history) == 20
    assert looked_enough(history, 2) and not looked_enough(history, 3)
    assert not looked_enough(history, 0) and not looked_enough([], 1)
