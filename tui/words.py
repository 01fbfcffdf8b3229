"""Sentences that several commands and screens say about the same facts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from appliance.core.errors import NeedsApproval

if TYPE_CHECKING:
    from appliance.ops.removal import Removal
    from appliance.serve.client import Reply

NO_PRIVACY = (
    "NO PRIVACY: nobody is protected. This model may repeat the records it was trained on, word for word, to"
    " anyone who can ask it; keep it where the records may be read. This stays in its lineage."
)

PUBLIC = (
    "DECLARED PUBLIC: nothing is charged and nobody is protected, because you say that these records are"
    " public. No model is kept, only the best settings. This stays in the audit log."
)


LEARNS = {
    "label": "one label of a few",
    "answer": "free answers",
    "chat": "the assistant's turns of conversations",
    "text": "running text",
    "preference": "which of two answers is better",
}
"""What a model learns of a dataset, by its task."""


def bytes_text(size: float) -> str:
    """Bytes in MB or GB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def waiting_text(problem: NeedsApproval) -> str:
    """Who must agree, where they do, and what to do then."""
    return (
        f"{problem.message}\n\n{problem.hint}"
        "\n\nOn the screens they sign under 9 Audit, key r. Then do this again: nothing was done yet."
    )


def gate_word(report: Mapping[str, Any]) -> str:
    """The verdict of a report or gate: PASS, FAIL, or "partial" where not all test records were looked at."""
    return "PASS" if report["passed"] else "partial" if report.get("partial") else "FAIL"


def standing(reports: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The report that counts for each model: the newest, but one of a part never before one of the whole.

    `reports` are newest first, as Session.reports gives them.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for report in sorted(reports, key=lambda report: bool(report["partial"])):
        found.setdefault(report["model"], report)
    return found


def statement(privacy: dict[str, Any]) -> str:
    """The privacy claim in one sentence."""
    return (
        f"epsilon {privacy['epsilon']:.2f}, delta {privacy['delta']:.2g} for each {privacy['unit']}"
        f" ({privacy['declared_units'] - privacy.get('made_up_units', 0):,} {privacy['unit']}s;"
        f" {privacy['adjacency']})"
    )


def privacy_lines(privacy: dict[str, Any], width: int = 79) -> list[str]:
    """The whole claim, a fact a line, wrapped; what is not protected comes last, as a list."""
    lines: list[str] = []
    for name, value in privacy.items():
        if name != "not_protected":
            lines += _fact(name.replace("_", " "), figure(value), width)
    if privacy.get("not_protected"):
        lines.append("  not protected:")
        for part in privacy["not_protected"]:
            lines += textwrap.wrap(part, width, initial_indent="    - ", subsequent_indent="      ")
    return lines


def training_lines(training: dict[str, Any], width: int = 79) -> list[str]:
    """How a model was trained: what of it, on what loss, for how long, and why it ended."""
    settings = training.get("settings", {})
    done = len(training.get("history", []))
    facts = {"method": settings.get("method"), "objective": settings.get("objective") or None}
    if training.get("trained"):
        facts["trained"] = f"{training['trained']:,} parameters"
    if done:
        kept = training.get("kept_step", done)
        facts["steps"] = f"{done}" + ("" if kept == done else f", the weights of step {kept} were kept")
    ended = {
        "budget": "epsilon was spent",
        "early": "validation got no better",
        "diverged": "the loss was no number any more",
    }
    facts["ended early"] = ended.get(training.get("stopped") or "")
    return [line for name, value in facts.items() if value for line in _fact(name, str(value), width)]


def _fact(name: str, value: str, width: int) -> list[str]:
    return textwrap.wrap(
        value,
        width,
        initial_indent=f"  {name:<18} ",
        subsequent_indent=" " * 21,
        break_on_hyphens=False,
        break_long_words=False,
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


def removal_lines(going: Removal) -> list[str]:
    """What goes with a model that is removed, and what stays."""
    model = going.model
    count = f"{going.files} {'file' if going.files == 1 else 'files'}, {bytes_text(going.size)}"
    lines = [f"{model.name} ({model.kind}, sha256 {model.sha256[:12]}): {count}"]
    if not going.files:
        lines.append(f"Its files lie outside of the site's models and stay: {model.path}")
    if going.reports:
        lines.append(f"Its reports ({going.reports}) will let no model of that name be served.")
    return [*lines, "Privacy that was spent on it stays spent."]


def reply_words(reply: Reply) -> str:
    """How fast it was, and where it came from: `first token 171 ms   31 tok/s   45 tokens`."""
    parts = []
    if reply.label is not None and reply.confidence is not None:
        parts.append(f"{reply.confidence:.0%} sure")
    if reply.first is not None:
        parts.append(f"first token {reply.first * 1000:,.0f} ms")
    if reply.rate is not None:
        parts.append(f"{reply.rate:,.0f} tok/s")
    if count := reply.usage.get("completion_tokens"):
        parts.append(f"{count} token{'s' if count > 1 else ''}")
    if reply.cached:
        parts.append("from the cache")
    if reply.finish == "length":
        parts.append("cut at its longest")
    return "   ".join(parts)
