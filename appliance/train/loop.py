"""The one training loop: sampled batch in, optimiser step out, checkpoint behind every step.

Private: charge the ledger, sample units, sum their clipped gradients, add noise, divide by the
expected number of units. Open: draw records, average their gradients. The rest is the same.
Noise and sampling keys are never stored: a resumed run draws new ones, and pays for the steps it
repeats.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from appliance.core.errors import BudgetSpent, Diverged, NoMemory, PrivacyRefused, out_of_memory
from appliance.models.encoding import Example
from appliance.privacy.noise import LATTICE, Drawing, Keystream
from appliance.train.batch import answer_logits, collate
from appliance.train.clip import clip_to_lattice
from appliance.train.engine import Engine
from appliance.train.losses import Loss
from appliance.train.optimiser import Optimiser
from appliance.train.plan import Plan
from appliance.train.ranks import SOLO, Ranks
from appliance.train.sampling import pack, poisson_units, some_records
from appliance.train.settings import Settings


@dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What one step saw.

    `clipped` is the share of units whose gradient was clipped, `lost` counts those whose gradient was
    not a number (they add nothing). `noise_ratio` is the standard deviation of the noise really added
    over the promised one, None without privacy. `pieces`: how finely micro-batches are cut because
    memory ran out.
    """

    step: int
    loss: float
    units: int
    clipped: float
    lost: int
    noise_ratio: float | None
    tokens: int
    pieces: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Update:
    """The gradient of one step, flat, with what went into it (see StepFacts)."""

    gradient: torch.Tensor
    loss: float
    units: int
    clipped: float
    tokens: int
    lost: int = 0
    noise_ratio: float | None = None
    pieces: int = 1


NextUpdate = Callable[[], Update]


def private_update(
    engine: Engine,
    groups: Sequence[Sequence[Example]],
    plan: Plan,
    settings: Settings,
    ranks: Ranks = SOLO,
) -> NextUpdate:
    """Updates by DP-SGD over `groups`: what is sampled together, averaged and clipped once."""
    if not plan.noise_multiplier or not plan.sample_rate or not plan.expected_batch:
        raise PrivacyRefused("A private run needs noise, a sampling rate and a declared number of units.")
    noise_multiplier, sample_rate, expected = plan.noise_multiplier, plan.sample_rate, plan.expected_batch
    size, most, bound = _size(engine.parameters), settings.records_per_unit, settings.max_grad_norm
    # All processes draw the same sample from a key that the first one made; the noise has its own.
    sampler = Keystream(bytes.fromhex(ranks.from_first(os.urandom(32).hex())))
    drawing = Drawing(size, noise_multiplier * LATTICE, ahead=engine.parameters[0].is_cuda)
    memory = _Pieces()

    def sums(parts: Sequence[Sequence[Sequence[Example]]]) -> tuple[NDArray[np.int64], list[float]]:
        total, told = np.zeros(size, dtype=np.int64), np.zeros(4)
        for part in parts:
            gradients, losses = engine.unit_gradients(part)
            whole = torch.isfinite(gradients.sum(dim=1))
            summed, cut = clip_to_lattice(gradients if bool(whole.all()) else gradients[whole], bound)
            total += summed
            there = losses[whole]
            told += [float(there.sum()), len(there), int(cut.sum()), len(losses) - len(there)]
        return total, told.tolist()

    def update() -> Update:
        taken = [
            [groups[unit][place] for place in some_records(range(len(groups[unit])), most, sampler)]
            for unit in poisson_units(len(groups), sample_rate, sampler)
        ]
        parts = _micro_batches(taken, settings.micro_tokens)
        drawn = drawing.begin()
        total, told = memory.work(sums, ranks.share(parts))
        total = ranks.summed(total)
        loss, finite, clipped, lost = ranks.summed(np.array(told)).tolist()
        exact = torch.from_numpy((total + drawn()) * (bound / LATTICE / expected))
        gradient = ranks.gradient(exact.float())
        added = gradient.double().numpy() * (expected / bound) - total / LATTICE
        return Update(
            gradient=gradient,
            loss=loss / finite if finite else float("nan"),
            units=len(taken),
            clipped=clipped / max(1, len(taken)),
            lost=int(lost),
            noise_ratio=float(np.sqrt(np.mean(added**2))) / noise_multiplier,
            tokens=_tokens(taken),
            pieces=memory.pieces,
        )

    return update


def open_update(
    model: Any,
    loss: Loss,
    records: Sequence[Example],
    settings: Settings,
    start: int,
    device: str,
    ranks: Ranks = SOLO,
) -> NextUpdate:
    """Updates without privacy: batches of a seeded shuffle, pass after pass, from step `start`."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    size = min(settings.batch, len(records))
    per_pass = len(records) // size
    state = {"step": start}
    memory = _Pieces()

    def sums(parts: Sequence[Sequence[Sequence[Example]]]) -> float:
        total = 0.0
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        for part in parts:
            some = [record for group in part for record in group]
            batch = collate(some, device)
            each = loss(answer_logits(model, batch), batch, some)
            torch.autograd.backward(each.sum() / size)
            total += float(each.detach().sum())
        return total

    def update() -> Update:
        turn, place = divmod(state["step"], per_pass)
        state["step"] += 1
        order = np.random.default_rng([settings.seed, turn]).permutation(len(records))
        chosen = [[records[row]] for row in order[place * size : (place + 1) * size]]
        total = memory.work(sums, ranks.share(_micro_batches(chosen, settings.micro_tokens)))
        flat = torch.cat([p.grad.reshape(-1).float() for p in parameters if p.grad is not None]).cpu()
        for parameter in parameters:
            parameter.grad = None
        return Update(
            gradient=torch.from_numpy(ranks.summed(flat.numpy())),
            loss=float(ranks.summed(np.array([total]))[0]) / size,
            units=size,
            clipped=0.0,
            tokens=_tokens(chosen),
            pieces=memory.pieces,
        )

    return update


def train(
    update: NextUpdate,
    optimiser: Optimiser,
    *,
    start: int,
    steps: int,
    charge: Callable[[int], None] | None,
    saved: Callable[[int], None],
    tell: Callable[[StepFacts], None],
    enough: Callable[[], bool] = lambda: False,
) -> int:
    """Take the steps from `start` to `steps`; returns how many are done in all.

    `charge(step)` is called before each private step; when it raises BudgetSpent the run ends there
    and keeps what it has. `tell` hears of each step, then `saved(done)` makes it durable; when
    `enough()` says so after that, or before the first step of a run that goes on, the run ends early.

    Raises:
        Diverged: loss or weights are no longer numbers; what `saved` kept last is still good.
    """
    if enough():
        return start
    for step in range(start, steps):
        began = time.monotonic()
        if charge is not None:
            try:
                charge(step)
            except BudgetSpent:
                return step
        found = update()
        if found.units and (found.lost == found.units or not np.isfinite(found.loss)):
            raise _diverged(step)
        optimiser.apply(step, found.gradient)
        if not optimiser.finite():
            raise _diverged(step)
        tell(
            StepFacts(
                step=step + 1,
                loss=found.loss,
                units=found.units,
                clipped=found.clipped,
                lost=found.lost,
                noise_ratio=found.noise_ratio,
                tokens=found.tokens,
                pieces=found.pieces,
                seconds=time.monotonic() - began,
            )
        )
        saved(step + 1)
        if enough():
            return step + 1
    return steps


def mean_loss(model: Any, loss: Loss, records: Sequence[Example], device: str, budget: int) -> float:
    """Mean loss over records, without training and without dropout."""
    total = 0.0
    model.eval()
    with torch.no_grad():
        for part in _micro_batches([[record] for record in records], budget):
            some = [record for group in part for record in group]
            batch = collate(some, device)
            total += float(loss(answer_logits(model, batch), batch, some).sum())
    model.train()
    return total / len(records) if records else float("nan")


class _Pieces:
    """Cuts micro-batches into more pieces whenever memory runs out, from then on."""

    def __init__(self) -> None:
        self.pieces = 1

    def work(self, sums: Callable[[Any], Any], parts: Sequence[list[Sequence[Example]]]) -> Any:
        """What `sums` makes of the parts, cut; begun anew, finer, when memory runs out.

        Nothing of an attempt that failed is kept, and what is summed is the same however it is cut.

        Raises:
            NoMemory: not even single units fit.
        """
        while True:
            try:
                return sums([piece for part in parts for piece in _cut(part, self.pieces)])
            except (RuntimeError, MemoryError) as problem:
                if not out_of_memory(problem):
                    raise
                if all(len(part) <= self.pieces for part in parts):
                    raise NoMemory(
                        "There is not enough memory for the gradient of a single unit.",
                        "Use --checkpointing, --precision bfloat16, fewer --targets or --records-per-unit.",
                    ) from problem
            self.pieces *= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _cut(part: list[Sequence[Example]], pieces: int) -> Iterable[list[Sequence[Example]]]:
    step = -(-len(part) // pieces)
    return [part[at : at + step] for at in range(0, len(part), step)]


def _micro_batches(groups: Sequence[Sequence[Example]], budget: int) -> list[list[Sequence[Example]]]:
    lengths = [[len(part.tokens) for record in group for part in record.sequences] for group in groups]
    return [[groups[place] for place in part] for part in pack(lengths, budget)]


def _tokens(groups: Sequence[Sequence[Example]]) -> int:
    return sum(len(part.tokens) for group in groups for record in group for part in record.sequences)


def _size(parameters: Sequence[torch.Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _diverged(step: int) -> Diverged:
    return Diverged(
        f"Step {step + 1} gave a loss or weights that are not numbers.",
        "Lower --learning-rate and start anew.",
    )
