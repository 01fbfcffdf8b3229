"""AdamW over what is trained, with its state in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from appliance.core.files import replacing
from appliance.core.reading import local_path
from appliance.train.plan import Plan, learning_rates


class Optimiser:
    """Takes steps along flat gradients, in the order of the model's trained parameters."""

    def __init__(self, model: Any, plan: Plan) -> None:
        self._named = {name: part for name, part in model.named_parameters() if part.requires_grad}
        self._adam = torch.optim.AdamW(
            list(self._named.values()), betas=(0.9, 0.99), weight_decay=plan.weight_decay
        )
        self._rates = learning_rates(plan.steps, plan.learning_rate, plan.schedule, plan.warmup_steps)

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

    def finite(self) -> bool:
        """Whether every weight is still a number."""
        return all(bool(torch.isfinite(part).all()) for part in self._named.values())

    def save(self, path: Path, step: int, history: Sequence[dict[str, Any]]) -> None:
        """Write weights, moments and the number of finished steps."""
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
        with local_path(path) as plain, safe_open(plain, framework="pt") as stored:
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
