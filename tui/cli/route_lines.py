"""A route with its counts as lines. Pure; for the command line and the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tui.cli.tables import WIDTH, table_lines

_FEWEST = 10  # answers an arm; of fewer a difference says nothing, and looks as if it did


def head_lines(found: Mapping[str, Any], models: Mapping[str, str]) -> list[str]:
    """Name, state, and which model is which."""
    width = max(map(len, models))
    return [
        f"Route {found['name']} ({found['kind']}), {found['state']}",
        *([found["broken"]] if found.get("broken") else []),
        *(f"  {arm:{width}}  {model}" for arm, model in models.items()),
        "",
    ]


def split_lines(found: Mapping[str, Any], width: int = WIDTH) -> list[str]:
    """An A/B split: counts by arm, and what they say so far."""
    lines = head_lines(found, {"A": found["a"], f"B ({found['share']:.0%} of people)": found["b"]})
    lines += table_lines(
        ("arm", "requests", "errors", "up", "down", "thumbs up", "rating"),
        [
            (
                arm.upper(),
                *(found["counts"][arm][what] for what in ("requests", "errors", "up", "down")),
                _percent(found["rates"][arm]["thumbs"]),
                _figure(found["rates"][arm]["rating"]),
            )
            for arm in ("a", "b")
        ],
        width=width,
    )
    for what, words in (("thumbs", "Thumbs up"), ("errors", "Errors")):
        of = [_asked(found["counts"][arm], what) for arm in ("a", "b")]
        one = found[what]
        lines.append(f"{words}: {one['verdict']}.")
        if one["difference"] is not None and min(of) >= _FEWEST:
            lines.append(
                f"  B - A {one['difference'] * 100:+.1f} points,"
                f" 95 % interval {one['low'] * 100:+.1f} to {one['high'] * 100:+.1f}, p {one['p']:.3f}"
            )
    return [
        *lines,
        f"Decide once each arm has {found['thumbs']['needed']} thumbs; earlier looks mislead.",
        "Answers count as independent: many from few people make this look too sure.",
    ]


def hybrid_lines(found: Mapping[str, Any], width: int = WIDTH) -> list[str]:
    """Small model first: where it sends on, and the table of thresholds."""
    lines = head_lines(found, {"small": found["a"], "large": found["b"]})
    counts, words = found["counts"], "sure" if found["by"] == "confidence" else "odds"
    sent = counts["b"]["requests"]
    lines.append(f"Goes by {found['by']}, threshold {found['threshold']:g}. Sent on so far: {sent}.")
    if learnt := found.get("learnt"):
        lines += [
            f"Measured on {learnt['records']} records of {learnt['dataset']} ({learnt['split']} split).",
            f"The large model's answer is better on {learnt['large_better']} of them.",
        ]
    label = not learnt or learnt["task"] == "label"
    rows = [
        (
            f"{row['threshold']:.3f}",
            f"{row['share']:.1%}",
            f"{row['quality']:.4f}",
            f"{row['seconds']:.4f}",
            "<" if row["threshold"] == found["threshold"] else "",
        )
        for row in found["table"]
    ]
    columns = (f"threshold ({words})", "sent on", "right" if label else "likelihood", "seconds", "in use")
    lines += table_lines(columns, rows, width=width) if rows else [_NO_TABLE]
    if found.get("router"):
        lines.append("What the router learnt from records is not protected by differential privacy.")
    return lines


def _asked(counts: Mapping[str, int], what: str) -> int:
    """How many answers an arm's share is of."""
    return counts["up"] + counts["down"] if what == "thumbs" else counts["requests"]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


_NO_TABLE = "No evaluation has both models, so there is no table."
