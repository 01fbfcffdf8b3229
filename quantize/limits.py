"""How close is close enough: the figures a file must reach before it is registered.

Why these: docs/decisions/quantise-limits.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from appliance.core.errors import ConfigWrong


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Against transformers in float32. `max_abs` is in standard deviations of the logits."""

    kl_mean: float
    max_abs: float
    same_top: float


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A quantised file against its F16: mean KLD (nats), same best token where F16 has a clear one
    (measure.CLEAR), perplexity ratio (where F16's perplexity is at most `READABLE`).
    """

    kld_mean: float
    same_top_clear: float
    perplexity_ratio: float


PARITY = {
    "F32": Parity(kl_mean=1e-8, max_abs=1e-3, same_top=0.995),
    "F16": Parity(kl_mean=1e-4, max_abs=0.1, same_top=0.95),
}
LOSS = {
    "Q8_0": Loss(kld_mean=0.01, same_top_clear=0.995, perplexity_ratio=1.02),
    "Q6_K": Loss(kld_mean=0.02, same_top_clear=0.99, perplexity_ratio=1.02),
    "Q5_K_M": Loss(kld_mean=0.03, same_top_clear=0.98, perplexity_ratio=1.03),
    "Q4_K_M": Loss(kld_mean=0.1, same_top_clear=0.93, perplexity_ratio=1.05),
    "Q4_0": Loss(kld_mean=0.1, same_top_clear=0.93, perplexity_ratio=1.05),
}
# Beyond this perplexity the proof texts are none that the model has learnt to write (a label model
# hardly writes at all), and the ratio compares the noise in its least likely tokens.
READABLE = 100.0
# What to try next when a type is too far from F16.
LADDER = ("Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")


def loss_limits(changes: dict[str, dict[str, float]] | None) -> dict[str, Loss]:
    """`LOSS` with a site's own figures, {"Q4_K_M": {"kld_mean": 0.1}}.

    Raises:
        ConfigWrong: a type or figure that does not exist.
    """
    limits = dict(LOSS)
    for kind, figures in (changes or {}).items():
        if kind not in limits or not set(figures) <= set(asdict(limits[kind])):
            raise ConfigWrong(
                f"There is no such quantising limit: {kind} {sorted(figures)}.", "See docs/decisions."
            )
        limits[kind] = replace(limits[kind], **figures)
    return limits


def shortfalls(figures: dict[str, Any], limit: Parity | Loss) -> list[str]:
    """What of `figures` misses `limit`, in words; empty when all is well."""
    missed = []
    for name, bound in asdict(limit).items():
        if name == "perplexity_ratio" and figures["perplexity_f16"] > READABLE:
            continue
        value = figures[name]
        good = value >= bound if name.startswith("same_top") else value <= bound
        if not good:  # also when it is not a number
            missed.append(f"{name} {value:.4g}, limit {bound:g}")
    return missed
