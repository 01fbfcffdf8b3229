"""A run of the product's own update code on canaries: what was really sampled, clipped and added.

Every canary is a unit whose gradient is a direction of its own, longer than the clip bound: the worst
case there can be. Each is in by a fair coin that stays secret until the scores stand. No record takes
part, so nothing is charged; what is tested is the mechanism with a run's settings, not its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from appliance.models.encoding import Encoded, Example
from appliance.privacy.noise import Keystream
from appliance.train import loop
from appliance.train.plan import Plan
from appliance.train.settings import Settings

_TOO_LONG = 3.0  # clip bounds that a canary's gradient has
_SPARE = 256  # directions that no canary has
_ROWS = 256  # canaries in one micro-batch
_BARELY = 1e-6  # noise that changes the norm of 4096 coordinates by less than mechanism.ROUNDING

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Canaries:
    """What a run on canaries gave: a score each, in clip bounds, who was in, and each step's batch.

    `entered` is how many could be sampled: every canary that was in, `draws` times.
    """

    scores: Floats
    inside: NDArray[np.bool_]
    batches: tuple[int, ...]
    entered: int


class CanaryEngine:
    """Canary k's gradient is row k of `table` (see train.engine.Engine)."""

    def __init__(self, table: torch.Tensor) -> None:
        self.parameters = [torch.zeros(table.shape[1])]
        self._table = table

    def unit_gradients(self, groups: Sequence[Sequence[Example]]) -> tuple[torch.Tensor, torch.Tensor]:
        """One row a canary, and losses of 1."""
        rows = self._table[[group[0].sequences[0].prompt[0] for group in groups]]
        return rows, torch.ones(len(rows))

    def close(self) -> None:
        """Nothing to leave."""


def run_canaries(
    plan: Plan, settings: Settings, count: int, told: Callable[[int], None] = lambda done: None
) -> Canaries:
    """Take all steps of `plan` with `count` canaries; a canary's score is the sum of its updates."""
    bound, expected = settings.max_grad_norm, plan.expected_batch or 0.0
    inside = Keystream().uniform(count) < 0.5
    groups = [_canary(axis) for axis in np.flatnonzero(inside).tolist() for _ in range(plan.draws)]
    engine = CanaryEngine(torch.eye(count, count + _SPARE) * (_TOO_LONG * bound))
    update = loop.private_update(engine, groups, plan, _plain(settings))
    total, batches = np.zeros(count + _SPARE), []
    for step in range(plan.steps):
        found = update()
        total += found.gradient.double().numpy() * (expected / bound)
        batches.append(found.units)
        told(step + 1)
    return Canaries(scores=total[:count], inside=inside, batches=tuple(batches), entered=len(groups))


def pure_noise(plan: Plan, settings: Settings, size: int, steps: int) -> list[Floats]:
    """What a fresh start of the product's code adds in `steps` steps without any unit, in clip bounds."""
    engine = CanaryEngine(torch.zeros(0, size))
    update = loop.private_update(engine, [], plan, _plain(settings))
    scale = (plan.expected_batch or 0.0) / settings.max_grad_norm
    return [update().gradient.double().numpy() * scale for _ in range(steps)]


def clipped_norms(plan: Plan, settings: Settings, size: int, seed: int = 0) -> list[float]:
    """What units of many lengths and shapes add to a sum, each alone: norms over the clip bound.

    Measured through whole steps that take every unit, with noise too small to matter.
    """
    random = torch.Generator().manual_seed(seed)
    table = torch.randn(8, size, generator=random)
    table[4:] *= torch.rand(4, size, generator=random) < 0.01  # most of it in a few places
    lengths = torch.tensor([0.5, 1.0, 1.000001, 2.0, 1.0, 10.0, 1e3, 1e6])
    table *= (lengths * settings.max_grad_norm / table.norm(dim=1))[:, None]
    bare = replace(plan, sample_rate=1.0, expected_batch=1.0, noise_multiplier=_BARELY)
    norms = []
    for row in range(len(table)):
        update = loop.private_update(CanaryEngine(table), [_canary(row)], bare, _plain(settings))
        norms.append(float(update().gradient.double().norm()) / settings.max_grad_norm)
    return norms


def _canary(row: int) -> list[Example]:
    """A unit of one record, whose gradient is this row."""
    return [Encoded(prompt=(row,), answer=(0,))]


def _plain(settings: Settings) -> Settings:
    """Canaries have one record each, and few tokens."""
    return replace(settings, micro_tokens=max(16, 2 * _ROWS), processes=1)
