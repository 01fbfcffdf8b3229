"""The one training loop: sampled batch in, optimiser step out, checkpoint behind every step.

Private: charge the ledger, sample units, sum their clipped gradients, add noise, divide by the
expected number of units. Open: draw records, average their gradients. The rest is the same.
Noise and sampling keys are never stored: a resumed run draws new ones, and pays for the steps it
repeats.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from appliance.core.errors import BudgetSpent, PrivacyRefused
from appliance.core.files import replacing
from appliance.models.encoding import Encoded
from appliance.privacy.noise import LATTICE, Keystream, discrete_gaussian
from appliance.train.clip import clip_to_lattice
from appliance.train.engine import Engine
from appliance.train.losses import Loss, answer_logits, collate
from appliance.train.plan import Plan, learning_rates
from appliance.train.sampling import pack, poisson_units, some_records
from appliance.train.settings import Settings


@dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What one step saw. `clipped` is the share of units whose gradient was clipped."""

    step: int
    loss: float
    units: int
    clipped: float
    tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Update:
    """The gradient of one step, flat, with what went into it."""

    gradient: torch.Tensor
    loss: float
    units: int
    clipped: float
    tokens: int


NextUpdate = Callable[[], Update]


def private_update(
    engine: Engine, groups: Sequence[Sequence[Encoded]], plan: Plan, settings: Settings
) -> NextUpdate:
    """Updates by DP-SGD over `groups`: what is sampled together, averaged and clipped once."""
    if not plan.noise_multiplier or not plan.sample_rate or not plan.expected_batch:
        raise PrivacyRefused("A private run needs noise, a sampling rate and a declared number of units.")
    noise_multiplier, sample_rate, expected = plan.noise_multiplier, plan.sample_rate, plan.expected_batch
    size = sum(parameter.numel() for parameter in engine.parameters)
    stream = Keystream()

    def update() -> Update:
        total = np.zeros(size, dtype=np.int64)
        losses: list[float] = []
        clipped = tokens = 0
        taken = [
            [groups[unit][place] for place in some_records(range(len(groups[unit])), most, stream)]
            for unit in poisson_units(len(groups), sample_rate, stream)
        ]
        lengths = [[len(record.tokens) for record in group] for group in taken]
        for part in pack(lengths, settings.micro_tokens):
            gradients, loss = engine.unit_gradients([taken[place] for place in part])
            summed, cut = clip_to_lattice(gradients, settings.max_grad_norm)
            total += summed
            clipped += int(cut.sum())
            losses += loss.tolist()
            tokens += sum(sum(lengths[place]) for place in part)
        total += discrete_gaussian(size, noise_multiplier * LATTICE, stream)
        gradient = torch.from_numpy(total * (settings.max_grad_norm / LATTICE / expected))
        return Update(
            gradient=gradient.float(),
            loss=float(np.mean(losses)) if losses else float("nan"),
            units=len(taken),
            clipped=clipped / max(1, len(taken)),
            tokens=tokens,
        )

    most = settings.records_per_unit
    return update


def open_update(
    model: Any, loss: Loss, records: Sequence[Encoded], settings: Settings, start: int, device: str
) -> NextUpdate:
    """Updates without privacy: batches of a seeded shuffle, pass after pass, from step `start`."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    size = min(settings.batch, len(records))
    per_pass = len(records) // size
    state = {"step": start}

    def update() -> Update:
        turn, place = divmod(state["step"], per_pass)
        state["step"] += 1
        order = np.random.default_rng([settings.seed, turn]).permutation(len(records))
        chosen = [records[row] for row in order[place * size : (place + 1) * size]]
        total = 0.0
        for part in pack([[len(record.tokens)] for record in chosen], settings.micro_tokens):
            some = [chosen[row] for row in part]
            batch = collate(some, device)
            each = loss(answer_logits(model, batch), batch, some)
            torch.autograd.backward(each.sum() / size)
            total += float(each.sum())
        gradient = torch.cat([parameter.grad.reshape(-1) for parameter in parameters]).cpu()
        for parameter in parameters:
            parameter.grad = None
        tokens = sum(len(record.tokens) for record in chosen)
        return Update(gradient=gradient, loss=total / size, units=size, clipped=0.0, tokens=tokens)

    return update


class Optimiser:
    """AdamW over the adapters, with its state in one safetensors file."""

    def __init__(self, model: Any, plan: Plan) -> None:
        self._named = {name: part for name, part in model.named_parameters() if part.requires_grad}
        self._adam = torch.optim.AdamW(
            list(self._named.values()), betas=(0.9, 0.99), weight_decay=plan.weight_decay
        )
        self._rates = learning_rates(plan.steps, plan.learning_rate)

    def apply(self, step: int, gradient: torch.Tensor) -> None:
        """Take step number `step` (from 0) along a flat gradient."""
        self._adam.param_groups[0]["lr"] = self._rates[step]
        place = 0
        for part in self._named.values():
            piece = gradient[place : place + part.numel()]
            part.grad = piece.reshape(part.shape).to(part.device, part.dtype)
            place += part.numel()
        self._adam.step()
        for part in self._named.values():
            part.grad = None

    def save(self, path: Path, step: int, history: Sequence[dict[str, Any]]) -> None:
        """Write adapters, moments and the number of finished steps."""
        tensors: dict[str, torch.Tensor] = {}
        for name, part in self._named.items():
            state = self._adam.state[part]
            tensors |= {
                f"w:{name}": part.detach().cpu().contiguous(),
                f"m:{name}": state["exp_avg"].cpu().contiguous(),
                f"v:{name}": state["exp_avg_sq"].cpu().contiguous(),
            }
        with replacing(path) as draft:
            save_file(tensors, draft, metadata={"step": str(step), "history": json.dumps(list(history))})

    def load(self, path: Path) -> tuple[int, list[dict[str, Any]]]:
        """Restore what `save` wrote; returns the number of finished steps and their history."""
        with safe_open(path, framework="pt") as stored:
            meta = stored.metadata()
            step = int(meta["step"])
            for name, part in self._named.items():
                with torch.no_grad():
                    part.copy_(stored.get_tensor(f"w:{name}"))
                self._adam.state[part] = {
                    "step": torch.tensor(float(step)),
                    "exp_avg": stored.get_tensor(f"m:{name}").to(part.device),
                    "exp_avg_sq": stored.get_tensor(f"v:{name}").to(part.device),
                }
        return step, json.loads(meta["history"])


def train(
    update: NextUpdate,
    optimiser: Optimiser,
    *,
    start: int,
    steps: int,
    charge: Callable[[int], None] | None,
    saved: Callable[[int], None],
    tell: Callable[[StepFacts], None],
) -> int:
    """Take the steps from `start` to `steps`; returns how many are done in all.

    `charge(step)` is called before each private step; when it raises BudgetSpent the run ends there
    and keeps what it has. `tell` hears of each step, then `saved(done)` makes it durable.
    """
    for step in range(start, steps):
        began = time.monotonic()
        if charge is not None:
            try:
                charge(step)
            except BudgetSpent:
                return step
        found = update()
        optimiser.apply(step, found.gradient)
        tell(
            StepFacts(
                step=step + 1,
                loss=found.loss,
                units=found.units,
                clipped=found.clipped,
                tokens=found.tokens,
                seconds=time.monotonic() - began,
            )
        )
        saved(step + 1)
    return steps


def mean_loss(model: Any, loss: Loss, records: Sequence[Encoded], device: str, budget: int) -> float:
    """Mean loss over records, without training."""
    total = 0.0
    with torch.no_grad():
        for part in pack([[len(record.tokens)] for record in records], budget):
            some = [records[row] for row in part]
            batch = collate(some, device)
            total += float(loss(answer_logits(model, batch), batch, some).sum())
    return total / len(records) if records else float("nan")
