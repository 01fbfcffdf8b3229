"""Fixed-step pre-training on the CPU: two one-thread processes that add their gradients.

Same files, seed, steps and number of workers: same run, up to the floating-point differences of
processors and library versions. A checkpoint every 200 steps; started again, a run goes on from the
last one and ends with the same bits as an uninterrupted one. There is no stop by the clock.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from base_model import net
from base_model.pack import Windows

SAVE_EVERY = 200
SAY_EVERY = 50


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the run. `batch` is the windows of a step, over all workers.

    `brief` is the number format of the products ("bfloat16" or "float32"); parameters, gradients
    and optimiser are always float32.
    """

    steps: int = 2200
    horizon: int = 4000
    cool: int = 1200
    length: int = 128
    batch: int = 32
    workers: int = 2
    seed: int = 20_250_601
    warmup: float = 0.03
    floor: float = 0.03
    brief: str = "bfloat16"
    corpus: str = ""


def rate(settings: Settings, step: int) -> float:
    """The share of the full learning rate at `step` (from 0).

    Linear warm-up and a cosine over `horizon` steps, left at step `cool` on a straight line that
    reaches the floor at the last step.
    """
    warm = max(1, round(settings.warmup * settings.horizon))
    if step < warm:
        return (step + 1) / warm

    def cosine(at: int) -> float:
        done = (at - warm) / max(1, settings.horizon - warm)
        return settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * done))

    if step < settings.cool:
        return cosine(step)
    left = (settings.steps - step) / max(1, settings.steps - settings.cool)
    return settings.floor + (cosine(settings.cool) - settings.floor) * left


def pretrain(
    work: Path, settings: Settings, shape: net.Shape, *, stop: int | None = None
) -> tuple[net.Parameters, list[dict[str, float]]]:
    """Train on work/tokens.npz (ids, weights, first embeddings); the parameters and the loss log.

    `stop` ends earlier than `settings.steps` with a checkpoint, as an interruption would.

    Raises:
        ValueError: the checkpoint in `work` belongs to other settings.
    """
    (work / "meeting").unlink(missing_ok=True)
    if settings.workers == 1:
        _worker(0, work, settings, shape, stop)
    else:
        mp.spawn(_worker, (work, settings, shape, stop), nprocs=settings.workers)
    state = torch.load(work / "checkpoint.pt", weights_only=True)
    return state["parameters"], state["log"]


def _worker(rank: int, work: Path, settings: Settings, shape: net.Shape, stop: int | None) -> None:
    torch.set_num_threads(1)
    if settings.workers > 1:
        meeting = f"file://{(work / 'meeting').absolute()}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=settings.workers)

    def add(value: Tensor) -> None:
        if settings.workers > 1:
            dist.all_reduce(value)

    arrays = np.load(work / "tokens.npz")
    generator = torch.Generator().manual_seed(settings.seed)
    parameters = net.fresh(shape, torch.from_numpy(arrays["embeddings"]), generator)
    optimiser = net.Optimiser(parameters)
    first, log = _resume(work, settings, parameters, optimiser)
    windows = Windows(
        arrays["ids"], arrays["weights"], length=settings.length, batch=settings.batch, seed=settings.seed
    )
    share = settings.batch // settings.workers
    mine = slice(rank * share, (rank + 1) * share)
    started, seconds = time.monotonic(), log[-1]["seconds"] if log else 0.0
    sums = torch.zeros(2)
    last = min(settings.steps, stop or settings.steps)
    for step in range(first, last):
        tokens, weights = windows.step(step)
        gradients, loss = _gradients(
            parameters, shape, tokens[mine], weights[mine], weights.sum(), settings, add
        )
        optimiser.step(
            gradients, number=step + 1, rate=rate(settings, step), rank=rank, world=settings.workers, add=add
        )
        sums += torch.tensor([loss, 1.0])
        done = step + 1
        if rank == 0 and (done % SAY_EVERY == 0 or done == last):
            spent = seconds + time.monotonic() - started
            log.append({"step": done, "loss": round(float(sums[0] / sums[1]), 4), "seconds": round(spent, 1)})
            sums.zero_()
            print(json.dumps(log[-1]), flush=True)
        if rank == 0 and (done % SAVE_EVERY == 0 or done == last):
            _save(work, settings, parameters, optimiser, done, log)
    if settings.workers > 1:
        dist.barrier()
        dist.destroy_process_group()


def _gradients(
    parameters: net.Parameters,
    shape: net.Shape,
    tokens: Tensor,
    weights: Tensor,
    total: Tensor,
    settings: Settings,
    add: Callable[[Tensor], None],
) -> tuple[net.Parameters, float]:
    """Gradients of the weighted mean loss over all workers' windows, and that loss."""
    leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    learnt = weights > 0
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.brief == "bfloat16"):
        losses = net.losses(leaves, shape, tokens, learnt)
    loss = (losses.float() * weights[learnt]).sum() / total
    found = torch.autograd.grad(loss, list(leaves.values()))
    flat = torch.cat([*(gradient.flatten() for gradient in found), loss.detach()[None]])
    add(flat)
    pieces = flat[:-1].split([value.numel() for value in found])
    gradients = {
        name: piece.view_as(value) for (name, value), piece in zip(parameters.items(), pieces, strict=True)
    }
    return gradients, float(flat[-1])


def _save(
    work: Path,
    settings: Settings,
    parameters: net.Parameters,
    optimiser: net.Optimiser,
    step: int,
    log: list[dict[str, float]],
) -> None:
    draft = work / "checkpoint.tmp"
    torch.save(
        {
            "settings": asdict(settings),
            "parameters": parameters,
            "optimiser": optimiser.state(),
            "step": step,
            "log": log,
        },
        draft,
    )
    with draft.open("rb") as stream:
        os.fsync(stream.fileno())
    draft.replace(work / "checkpoint.pt")


def _resume(
    work: Path, settings: Settings, parameters: net.Parameters, optimiser: net.Optimiser
) -> tuple[int, list[dict[str, float]]]:
    """Fill parameters and optimiser from the checkpoint, if there is one; the next step and the log."""
    path = work / "checkpoint.pt"
    if not path.exists():
        return 0, []
    state = torch.load(path, weights_only=True)
    if state["settings"] != asdict(settings):
        raise ValueError(f"{path} belongs to another run; remove it or choose another --work")
    for name, value in parameters.items():
        value.copy_(state["parameters"][name])
    optimiser.load(state["optimiser"])
    return state["step"], state["log"]
