"""What the agreement of a new federation says where nobody says otherwise, for the command and the form."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.core.errors import ConfigWrong

_TARGETS = ("v_proj", "o_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Rounds, privacy and adapter, in the words of federated/description.py."""

    rounds: int = 10
    quorum: int = 3
    min_cohort: int = 3
    deadline: float = 60.0
    rule: str = "mean"
    secure: bool = False
    packing: str = "i8"
    clip_bound: float = 1.0
    server: str = "fedavg"
    server_learning_rate: float = 1.0
    proximal: float = 0.0
    products: bool = False
    private: bool = True
    epsilon: float = 8.0
    delta: float | None = None
    steps: int = 5
    sample_rate: float = 0.35
    learning_rate: float = 0.01
    max_grad_norm: float = 0.2
    records_per_unit: int = 1
    max_tokens: int = 512
    rank: int = 4
    alpha: int = 8
    rslora: bool = False
    targets: Sequence[str] = _TARGETS
    layers: int = 0
    train_a: bool = False
    seed: int = 0
    days: int = 90


USUAL = Terms()


def usual_gateway() -> str:
    """This machine by its own name, port 8443."""
    return f"{socket.gethostname()}:8443"


def drafted(
    terms: Terms, name: str, *, gateway: str, also: Sequence[str] = (), base: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    """What session_federate.init takes; `given` is what session_federate.task_of gives.

    Raises:
        ConfigWrong: no rank, or no days.
    """
    if terms.rank < 1 or not 1 <= terms.days <= 3650:
        raise ConfigWrong("A federation has a rank and lasts 1 to 3650 days.", "Give other options.")
    return {
        "name": name,
        "gateway": gateway or usual_gateway(),
        "hosts": tuple(also),
        "base": base,
        "days": terms.days,
        "task": given["task"],
        "lora": {
            "rank": terms.rank,
            "alpha": terms.alpha,
            "rslora": terms.rslora,
            "targets": list(terms.targets),
            "layers": terms.layers,
            "freeze_a": not terms.train_a,
            "seed": terms.seed,
        },
        "rounds": {
            "count": terms.rounds,
            "quorum": terms.quorum,
            "min_cohort": terms.min_cohort,
            "deadline_minutes": terms.deadline,
            "rule": terms.rule,
            "secure": terms.secure,
            "packing": terms.packing,
            "clip_bound": terms.clip_bound,
            "server": terms.server,
            "server_learning_rate": terms.server_learning_rate,
            "proximal_mu": terms.proximal,
            "products": terms.products,
        },
        "training": {
            "private": terms.private,
            "epsilon": terms.epsilon,
            "delta": terms.delta or min(1e-5, given["delta"]),
            "unit": given["unit"],
            "steps": terms.steps,
            "sample_rate": terms.sample_rate,
            "learning_rate": terms.learning_rate,
            "max_grad_norm": terms.max_grad_norm,
            "records_per_unit": terms.records_per_unit,
            "max_tokens": terms.max_tokens,
        },
    }
