"""Sentences that several commands and screens say about the same facts."""

from __future__ import annotations

from typing import Any


def statement(privacy: dict[str, Any]) -> str:
    """The privacy claim in one sentence."""
    return (
        f"epsilon {privacy['epsilon']:.2f}, delta {privacy['delta']:.2g} for each {privacy['unit']}"
        f" ({privacy['declared_units']:,} {privacy['unit']}s; {privacy['adjacency']})"
    )


def proof_words(proof: dict[str, Any]) -> str:
    """What a file's proof says, in a few words."""
    if "loss" in proof:
        loss = proof["loss"]
        return (
            f"{proof['verdict']} against its F16: KL {loss['kld_mean']:.4f},"
            f" same top token {loss['same_top_clear']:.1%} where it is clear"
        )
    return f"{proof['verdict']} against transformers: same tokens, KL {proof['logits']['F16']['kl_mean']:.1e}"
