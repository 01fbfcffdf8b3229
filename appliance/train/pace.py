"""How long a run takes, guessed before it starts from this machine's speed at multiplying matrices."""

from __future__ import annotations

import time

import numpy as np

from appliance.train.memory import Shape, trained_parameters
from appliance.train.settings import Settings

_SIDE = 384
_MEASURED_SECONDS = 0.1
_REACHED = 0.65  # of that speed, in a step of LoRA on the demo base
_ROW_SECONDS = 7e-9  # a trained number of one record: written by Opacus' hooks, clipped, summed
_NOISE_SECONDS = 1e-7  # a trained number, drawn and applied: see `python -m bench noise`
_START_SECONDS = 8.0  # to load libraries and base


def matmul_speed() -> float:
    """Floating-point operations per second that numpy reaches here on float32 matrices: the best of a few."""
    matrix = np.random.default_rng(0).standard_normal((_SIDE, _SIDE), dtype=np.float32)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < _MEASURED_SECONDS:
        start = time.perf_counter()
        _ = matrix @ matrix
        best = min(best, time.perf_counter() - start)
    return 2 * _SIDE**3 / best


def step_work(shape: Shape, settings: Settings, *, tokens: float, labelled: float) -> float:
    """Floating-point operations of a step over `tokens` tokens, `labelled` of them with logits.

    2 a weight and token forward, 2 for the gradient that is handed down, 2 for the weight's own where it
    is trained (Kaplan et al. 2020, section 2.1); half as much again where activations are computed twice.
    """
    layers = sum(shape.layer)
    forward = 2.0 * layers
    match settings.method:
        case "full":
            back = 4.0 * layers
        case "head":
            back = 0.0
        case "last-layers":
            back = 4.0 * sum(shape.layer[-(settings.layers or 1) :])
        case _:
            back = 2.0 * layers + 2.0 * (
                trained_parameters(shape, settings) if settings.method == "lora" else 0
            )
    if settings.checkpointing:
        back += forward
    pairs = 2 if settings.objective == "dpo" else 1
    return pairs * (tokens * (forward + back) + labelled * 6.0 * shape.head)


def run_seconds(
    shape: Shape,
    settings: Settings,
    *,
    steps: int,
    records: float,
    tokens: float,
    labelled: float,
    speed: float,
) -> float:
    """About how long a run takes with `speed` from `matmul_speed` and so many `records` a step.

    Steps of the demo base took 0.7 to 1.3 times the guess with LoRA, with checkpointing, on the head and
    in full; other bases and machines may differ by a factor of three.
    """
    work = step_work(shape, settings, tokens=tokens, labelled=labelled)
    if settings.objective == "distill":
        work *= 1.5  # the teacher's forward pass, were it as large
    each = _NOISE_SECONDS + (_ROW_SECONDS * records if settings.method != "lora" else 0.0)
    private = each * trained_parameters(shape, settings) if settings.private else 0.0
    return _START_SECONDS + steps * (work / (speed * _REACHED) + private) / settings.processes
