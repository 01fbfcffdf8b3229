"""Sentences that several commands and screens say about the same facts."""

from __future__ import annotations

from typing import Any


def statement(privacy: dict[str, Any]) -> str:
    """The privacy claim in one sentence."""
    return (
        f"epsilon {privacy['epsilon']:.2f}, delta {privacy['delta']:.2g} for each {privacy['unit']}"
        f" ({privacy['declared_units']:,} {privacy['unit']}s; {privacy['adjacency']})"
    )


def figure(value: object) -> str:
    """A fact as people read it: four digits of a number, a list with semicolons."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "; ".join(f"{name} {figure(part)}" for name, part in value.items())
    return "; ".join(figure(part) for part in value) if isinstance(value, list) else str(value)


def proof_words(proof: dict[str, Any]) -> str:
    """What a file's proof says, in a few words."""
    if "loss" in proof:
        loss = proof["loss"]
        return (
            f"{proof['verdict']} against its F16: KL {loss['kld_mean']:.4f},"
            f" same top token {loss['same_top_clear']:.1%} where it is clear"
        )
    return f"{proof['verdict']} against transformers: same tokens, KL {proof['logits']['F16']['kl_mean']:.1e}"
