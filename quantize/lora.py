"""A peft LoRA adapter, merged into its base one tensor at a time: W' = W + scale * B A.

scale = alpha / r, or alpha / sqrt(r) with use_rslora (Hu et al. 2021; Kalajdzievski 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from appliance.core.errors import ModelRejected
from appliance.models.load import read_json
from appliance.models.safetensors import Tensor, read_header
from quantize.arch import is_tied
from quantize.source import Checkpoint, read_rows, to_float32

_PREFIX = "base_model.model."
# Settings that do not change what the two matrices mean. Any other that is on is refused, so that
# a variant of LoRA that peft adds later is not merged as if it were plain.
_HARMLESS = {
    *("base_model_name_or_path", "revision", "inference_mode", "task_type", "auto_mapping", "peft_version"),
    *("peft_type", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("lora_dropout", "r", "lora_alpha", "use_rslora", "megatron_core", "qalora_group_size"),
}
_SAME_START = (None, False, True, "gaussian")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """`pairs`: name of a base tensor -> (A [r, in], B [out, r])."""

    folder: Path
    rank: int
    scale: float
    pairs: dict[str, tuple[Tensor, Tensor]]

    def update(self, name: str) -> LowRank | None:
        """What to add to the base tensor `name`, if anything."""
        pair = self.pairs.get(name)
        if pair is None:
            return None
        down, up = (to_float32(read_rows(part), part.dtype) for part in pair)
        return LowRank(down=down, up=up * np.float32(self.scale))


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """`up` [out, r] times `down` [r, in], scale included."""

    down: np.ndarray
    up: np.ndarray

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows of the product, float32."""
        product: np.ndarray = self.up[start:stop] @ self.down
        return product


def open_adapter(folder: Path, checkpoint: Checkpoint) -> Adapter:
    """Read an adapter that belongs to `checkpoint`.

    Raises:
        ModelRejected: not plain LoRA, damaged, or made for another base.
    """
    config = read_json(folder / "adapter_config.json")
    scale = _scale(config)
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise ModelRejected(f"{folder} has no adapter_model.safetensors.", "Copy the whole adapter folder.")
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in read_header(weights).items():
        target, dot, kind = name.removeprefix(_PREFIX).partition(".lora_")
        if not name.startswith(_PREFIX) or not dot or kind not in ("A.weight", "B.weight"):
            raise _unmergeable(f"holds {name}")
        halves.setdefault(f"{target}.weight", {})[kind[0]] = tensor
    pairs = {name: _pair(name, half, checkpoint, config["r"]) for name, half in halves.items()}
    if not pairs:
        raise _unmergeable("holds no weights")
    return Adapter(folder=folder, rank=config["r"], scale=scale, pairs=pairs)


def _scale(config: dict[str, Any]) -> float:
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if config.get("peft_type") != "LORA":
        raise _unmergeable(f"is of type {config.get('peft_type')}")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise _unmergeable("has no usable r and lora_alpha")
    for key, value in config.items():
        plain = value == "none" if key == "bias" else not value
        plain = value in _SAME_START if key == "init_lora_weights" else plain
        if not plain and key not in _HARMLESS:
            raise _unmergeable(f"uses {key}")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _pair(name: str, half: dict[str, Tensor], checkpoint: Checkpoint, rank: int) -> tuple[Tensor, Tensor]:
    base = checkpoint.tensors.get(name)
    if base is None or (name == "lm_head.weight" and is_tied(checkpoint.config)) or len(base.shape) != 2:
        raise _unmergeable(f"changes {name}, which the base does not have on its own")
    if half.keys() != {"A", "B"} or half["A"].shape[1:] != base.shape[1:]:
        raise _unmergeable(f"does not fit the base at {name}")
    if half["A"].shape != (rank, base.shape[1]) or half["B"].shape != (base.shape[0], rank):
        raise _unmergeable(f"does not fit the base at {name}")
    return half["A"], half["B"]


def _unmergeable(why: str) -> ModelRejected:
    return ModelRejected(
        f"The adapter {why}; it cannot be merged.", "Use a plain LoRA adapter trained on this base."
    )
