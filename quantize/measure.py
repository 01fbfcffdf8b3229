"""How far two sets of logits lie apart."""

from __future__ import annotations

from typing import Any

import numpy as np

_ROWS = 16  # at a time: bounded memory at any vocabulary
CLEAR = 0.1  # lead in probability over the second best that makes the best token clear


def compare(ours: np.ndarray, theirs: np.ndarray) -> dict[str, np.ndarray]:
    """Per position, for logits [positions, vocabulary]; `theirs` is the reference.

    KL(theirs || ours) = sum softmax(x) (x - y) - log Zx + log Zy, with x, y the logits less their
    row maxima and Z the sums of their exponentials. In float64: equal files differ by about 1e-11.
    "finite" is False where one of the two has logits that are no numbers; the others mean nothing there.
    """
    kl, top, gap, clear, finite = [], [], [], [], []
    for at in range(0, len(theirs), _ROWS):
        raw_x, raw_y = (part[at : at + _ROWS].astype(np.float64) for part in (theirs, ours))
        sound = np.isfinite(raw_x).all(1) & np.isfinite(raw_y).all(1)
        raw_x[~sound] = raw_y[~sound] = np.nan
        x, y = (raw - raw.max(1, keepdims=True) for raw in (raw_x, raw_y))
        ex, zy = np.exp(x), np.exp(y).sum(1)
        zx = ex.sum(1)
        kl.append((ex * (x - y)).sum(1) / zx - np.log(zx) + np.log(zy))
        top.append((raw_x.argmax(1) == raw_y.argmax(1)) & sound)
        gap.append(np.abs(raw_x - raw_y).max(1) / raw_x.std())
        finite.append(sound)
        best = np.partition(ex, -2, axis=1)[:, -2:] / zx[:, None]
        clear.append(best[:, 1] - best[:, 0] >= CLEAR)
    parts = {"kl": kl, "same_top": top, "gap": gap, "clear": clear, "finite": finite}
    return {key: np.concatenate(part) for key, part in parts.items()}


def surprise(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """-log p of `tokens` [positions] under `logits` [positions, vocabulary], in nats."""
    found = []
    for at in range(0, len(logits), _ROWS):
        x = logits[at : at + _ROWS].astype(np.float64)
        x -= x.max(1, keepdims=True)
        found.append(np.log(np.exp(x).sum(1)) - x[np.arange(len(x)), tokens[at : at + _ROWS]])
    return np.concatenate(found)


def parity_figures(parts: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Summary of `compare` over windows, for the comparison with transformers."""
    whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return {
        "positions": len(whole["kl"]),
        "not_finite": int((~whole["finite"]).sum()),
        "kl_mean": float(whole["kl"].mean()),
        "kl_max": float(whole["kl"].max()),
        "max_abs": float(whole["gap"].max()),
        "same_top": float(whole["same_top"].mean()),
    }


def loss_figures(parts: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Summary over windows of `compare` and of the surprise under both (`ours`, `theirs`)."""
    whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    kl, ours, theirs = whole["kl"], whole["ours"], whole["theirs"]
    clear = whole["clear"]
    change = np.exp(-ours) - np.exp(-theirs)
    return {
        "positions": len(kl),
        "not_finite": int((~whole["finite"]).sum()),
        "kld_mean": float(kl.mean()),
        "kld_median": float(np.median(kl)),
        "kld_99": float(np.quantile(kl, 0.99)),
        "kld_max": float(kl.max()),
        "same_top": float(whole["same_top"].mean()),
        "same_top_clear": float(whole["same_top"][clear].mean()) if clear.any() else 1.0,
        "clear": float(clear.mean()),
        "perplexity": float(np.exp(ours.mean())),
        "perplexity_f16": float(np.exp(theirs.mean())),
        "perplexity_ratio": float(np.exp(ours.mean() - theirs.mean())),
        "p_change_mean": float(change.mean()),
        "p_change_rms": float(np.sqrt((change**2).mean())),
    }
