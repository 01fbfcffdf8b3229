"""How close is close enough: the figures a file must reach before it is registered.

Why these: docs/decisions/quantise-limits.md.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from appliance.core.errors import ConfigWrong


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Against transformers in float32. `max_abs` is in standard deviations of the logits; `tokens`
    and `chats` are the shares of strings with equal ids and of chats rendered alike.
    """

    kl_mean: float
    max_abs: float
    same_top: float
    tokens: float = 1.0
    chats: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A quantised file against its F16: mean KLD (nats), same best token where F16 has a clear one
    (measure.CLEAR), perplexity ratio (where F16's perplexity is at most `READABLE`). The others
    (99 % quantile and largest KLD, same best token anywhere) are asked only where a site sets them.
    """

    kld_mean: float
    same_top_clear: float
    perplexity_ratio: float
    kld_99: float | None = None
    kld_max: float | None = None
    same_top: float | None = None


PARITY = {
    "F32": Parity(kl_mean=1e-8, max_abs=1e-3, same_top=0.995),
    "F16": Parity(kl_mean=1e-4, max_abs=0.1, same_top=0.95),
}
# llama.cpp looks Gemma's GELU up in a table of F16 values (ggml's ggml_table_gelu_f16), so that F32
# files of these are as far from transformers as that table.
_GELU_TABLE = {"F32": Parity(kl_mean=1e-6, max_abs=1e-2, same_top=0.995)}
LOSS = {
    "Q8_0": Loss(kld_mean=0.01, same_top_clear=0.995, perplexity_ratio=1.02),
    "Q6_K": Loss(kld_mean=0.02, same_top_clear=0.99, perplexity_ratio=1.02),
    "Q5_K_M": Loss(kld_mean=0.03, same_top_clear=0.98, perplexity_ratio=1.03),
    "Q4_K_M": Loss(kld_mean=0.1, same_top_clear=0.93, perplexity_ratio=1.05),
    "IQ4_XS": Loss(kld_mean=0.1, same_top_clear=0.93, perplexity_ratio=1.05),
    "Q4_0": Loss(kld_mean=0.1, same_top_clear=0.93, perplexity_ratio=1.05),
}
# Beyond this perplexity the proof texts are none that the model has learnt to write (a label model
# hardly writes at all), and the ratio compares the noise in its least likely tokens.
READABLE = 100.0
_LEAST_SHARE = 0.99  # of strings and chats: with fewer equal, the tokenizer or template is another

Limits = dict[str, Parity | Loss]


def parity_limit(kind: str, arch: str) -> Parity:
    """What a draft of type `kind` must reach; `arch` is llama.cpp's name for the architecture."""
    return (_GELU_TABLE if arch.startswith("gemma") else PARITY).get(kind, PARITY[kind])


def limits_with(changes: Mapping[str, Mapping[str, float]] | None, arch: str = "") -> Limits:
    """All limits with a site's own figures, {"Q4_K_M": {"kld_mean": 0.1}}.

    Raises:
        ConfigWrong: a type or figure that does not exist, a bound that is no number or out of range, or
            a share of tokens or chats below 0.99.
    """
    limits = _shipped(arch)
    for kind, figures in (changes or {}).items():
        if kind not in limits:
            raise ConfigWrong(
                f"There is no such quantising limit: {kind}.{next(iter(figures), '')}.",
                f"Types with limits are: {', '.join(limits)}.",
            )
        known = asdict(limits[kind])
        if unknown := sorted(set(figures) - set(known)):
            close = difflib.get_close_matches(unknown[0].casefold(), known, n=1)
            raise ConfigWrong(
                f"There is no such quantising limit: {kind}.{unknown[0]}.",
                (f"Did you mean {close[0]}? " if close else "") + f"{kind} has: {', '.join(known)}.",
            )
        for figure, value in figures.items():
            _check_bound(f"{kind}.{figure}", value, optional=asdict(limits[kind])[figure] is None)
        changed: Any = limits[kind]
        limits[kind] = replace(changed, **figures)
    return limits


def _shipped(arch: str) -> Limits:
    return {**{kind: parity_limit(kind, arch) for kind in PARITY}, **LOSS}


def _check_bound(name: str, value: Any, *, optional: bool) -> None:
    if value is None and optional:
        return
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ConfigWrong(f"{value} is no limit for {name}.", "Give a number.")
    least, most = _range(name.rpartition(".")[2])
    if not least <= value <= most:
        raise ConfigWrong(
            f"{name} cannot be {value:g}.",
            f"Give a number from {least:g} to {most:g}." if most < math.inf else f"Give {least:g} or more.",
        )
    if name.endswith((".tokens", ".chats")) and value < _LEAST_SHARE:
        raise ConfigWrong(
            f"{name} cannot be {value:g}: with fewer equal, it is not the model.",
            f"Give a share from {_LEAST_SHARE} to 1.",
        )


def _range(figure: str) -> tuple[float, float]:
    """What a bound can be: shares from 0 to 1, distances and ratios from 0 on."""
    return 0.0, 1.0 if figure.startswith("same_top") or figure in ("tokens", "chats") else math.inf


def limits_changed(bounds: Limits, kinds: Iterable[str], arch: str) -> dict[str, dict[str, Any]]:
    """Where the bounds of `kinds` are not the shipped ones: kind -> figure -> {"shipped", "used"}."""
    changed: dict[str, dict[str, Any]] = {}
    for kind in kinds:
        used = asdict(bounds[kind])
        for figure, bound in asdict(_shipped(arch)[kind]).items():
            if used[figure] != bound:
                changed.setdefault(kind, {})[figure] = {"shipped": bound, "used": used[figure]}
    return changed


def read_limits(texts: Iterable[str]) -> dict[str, dict[str, float]]:
    """Changes for `limits_with`, from texts such as "Q4_K_M.kld_mean=0.08".

    Raises:
        ConfigWrong: not of that form, no figure named, or no number.
    """
    changes: dict[str, dict[str, float]] = {}
    for text in texts:
        place, _, value = text.partition("=")
        kind, figure = (part.strip() for part in place.partition(".")[::2])
        try:
            changes.setdefault(kind.upper(), {})[figure] = number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ConfigWrong(f"{text} is no limit.", "Give TYPE.FIGURE=NUMBER, as in Q4_K_M.kld_mean=0.08.")
        if not kind or not figure:
            raise ConfigWrong(
                f"{text} does not say which figure of which type it limits.",
                "Give TYPE.FIGURE=NUMBER, as in Q4_K_M.kld_mean=0.08.",
            )
    return changes


def shortfalls(figures: dict[str, Any], limit: Parity | Loss) -> list[str]:
    """What of `figures` misses `limit`, in words; empty when all is well."""
    missed = []
    if figures.get("not_finite"):
        missed.append(
            f"{figures['not_finite']} of {figures['positions']} positions have logits that are no numbers"
        )
    for name, bound in asdict(limit).items():
        if bound is None or name in ("tokens", "chats"):  # those are judged where they are counted
            continue
        if name == "perplexity_ratio" and figures["perplexity_f16"] > READABLE:
            continue
        value = figures[name]
        good = value >= bound if name.startswith("same_top") else value <= bound
        if not good:  # also when it is not a number
            missed.append(f"{name} {value:.4g}, limit {bound:g}")
    return missed
