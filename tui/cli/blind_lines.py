"""Blind comparisons as lines of a given width. Pure; for the screens and the command."""

from __future__ import annotations

from typing import Any

from appliance.evaluate.blind import TIE, Comparison, result
from tui.cli.tables import wrapped

COLUMNS = ("NO", "MODELS", "RECORDS", "PAIRS", "PREFERRED")


def cells(one: Comparison) -> tuple[str, ...]:
    """One row; what was preferred is told when all pairs are judged."""
    pairs = f"{len(one.choices)} of {len(one.records)}"
    return (one.id, " / ".join(one.models), f"{one.dataset} {one.split}", pairs, _preferred(one))


def _preferred(one: Comparison) -> str:
    if not one.done:
        return "not yet"
    counts = result(one)["counts"]
    first, second = (counts[model] for model in one.models)
    if first == second:
        return "neither"
    return f"{one.models[0] if first > second else one.models[1]} {max(first, second)}:{min(first, second)}"


def result_lines(one: Comparison, width: int) -> list[str]:
    """Who was preferred how often, and how sure that is."""
    if not one.done:
        return wrapped(
            f"{len(one.choices)} of {len(one.records)} pairs are judged. Counts are told at the end.",
            width=width,
        )
    found = result(one)
    counts, (first, second) = found["counts"], one.models
    room = max(map(len, (first, second, "ties")))
    told = ((first, first), (second, second), ("ties", TIE))
    lines = [f"{name:<{room}}  {counts[key]:>4}" for name, key in told]
    if found["share"] is None:
        return [*lines, "", *wrapped("Every pair was a tie: the two cannot be told apart here.", width=width)]
    sure = (
        "A difference this large is unlikely to be chance (p < .05)."
        if found["p"] < 0.05
        else "That may be chance: more pairs would tell."
    )
    return [
        *lines,
        "",
        *wrapped(
            f"Of the pairs with a choice {found['share']:.0%} went to {first} (95% CI {found['low']:.0%} to"
            f" {found['high']:.0%}; sign test p = {found['p']:.3f}). {sure} One person's choices: others may"
            " choose otherwise.",
            width=width,
        ),
    ]


def told(one: Comparison) -> dict[str, Any]:
    """For JSON; what was preferred only when all pairs are judged."""
    facts = {"id": one.id, "created": one.created, "who": one.who, "dataset": one.dataset, "split": one.split}
    pairs = {"models": list(one.models), "pairs": len(one.records), "judged": len(one.choices)}
    return facts | pairs | (result(one) if one.done else {})
