"""Rotary positions: what config.json says of them, in GGUF terms.

transformers 5 keeps all of it in rope_parameters, 4 in rope_theta and rope_scaling; where a file has
both, rope_scaling counts (transformers' modeling_rope_utils.py). Rope that changes with the length
of the text (dynamic, longrope) or scales attention (yarn) is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from quantize.layout import Config, Value, real, unlike


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Hyperparameters, and the tensor of factors that llama3 rope needs."""

    keys: dict[str, Value]
    extra: dict[str, np.ndarray] = field(default_factory=dict)


def read_rope(config: Config, size: int, *kinds: str) -> Rope:
    """Rope over the first `size` numbers of a head; its kind must be "default" or one of `kinds`.

    Raises:
        ModelRejected: another kind.
    """
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    return scaled(scaling, config, size, *kinds)


def scaled(scaling: Mapping[str, Any], config: Config, size: int, *kinds: str) -> Rope:
    """`read_rope` of one entry of rope_parameters; what it lacks, config.json may have at its top."""
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", *kinds):
        raise unlike("rope type", kind)
    theta = _number(scaling, config, "rope_theta", 10000.0)
    if not theta > 0:
        raise unlike("rope_theta", theta)
    keys: dict[str, Value] = {"rope.dimension_count": size, "rope.freq_base": theta}
    if kind == "linear":
        factor = real("rope factor", scaling["factor"])
        if not factor > 0:
            raise unlike("rope factor", factor)
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": factor}
    extra = {"rope_freqs.weight": _llama3(scaling, config, size, theta)} if kind == "llama3" else {}
    return Rope(keys=keys, extra=extra)


def rotated(config: Config) -> float:
    """The share of each head that rope turns."""
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    return _number(scaling, config, "partial_rotary_factor", 1.0)


def _number(scaling: Mapping[str, Any], config: Config, key: str, default: float) -> float:
    for place in (scaling, config):
        if place.get(key) is not None:
            return real(key, place[key])
    return default


def _llama3(scaling: Mapping[str, Any], config: Config, size: int, theta: float) -> np.ndarray:
    """The factors by which llama3 rope slows the low frequencies.

    transformers' modeling_rope_utils.py, _compute_llama3_parameters.
    """
    key = "original_max_position_embeddings"
    held: Any = config.get(key) or scaling.get(key) or config["max_position_embeddings"]
    names = ("low_freq_factor", "high_freq_factor", "factor")
    old, low, high, slow = float(held), *(float(scaling[name]) for name in names)
    with np.errstate(all="ignore"):
        waves = 2 * math.pi * theta ** (np.arange(0, size, 2, dtype=np.float64) / size)
        blend = (old / waves - low) / (high - low)
        middle = 1 / ((1 - blend) / slow + blend)
        factors = np.where(waves < old / high, 1.0, np.where(waves > old / low, slow, middle))
        factors = factors.astype(np.float32)
    if not (np.isfinite(factors) & (factors > 0)).all():
        raise unlike("llama3 rope", dict(scaling))
    return factors
