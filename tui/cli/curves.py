"""A run's curves on a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from tui.widgets.chart import draw_chart


def room() -> int:
    """Columns to write in."""
    return min(100, shutil.get_terminal_size().columns - 1)


def terminal_curves(history: Sequence[Mapping[str, Any]], width: int, height: int) -> list[str]:
    """Losses over steps in `height` lines, then what the curves end with; empty before two steps."""
    if len(history) < 2:
        return []
    losses, validation = points(history, "loss"), points(history, "validation_loss")
    ends = [f"training (-) {losses[-1][1]:.3f}"] if losses else []
    ends += [f"validation (o) {validation[-1][1]:.3f}"] if validation else []
    ends += [f"epsilon <= {points(history, 'epsilon')[-1][1]:.2f}"] if points(history, "epsilon") else []
    clipped = points(history, "clipped")
    if clipped and points(history, "epsilon"):
        ends.append(f"clipped {clipped[0][1]:.0%} to {clipped[-1][1]:.0%}")
    return [*draw_chart(losses, validation, width, height), *textwrap.wrap("  ".join(ends), width)]


def points(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """(step, value) wherever a step has that figure."""
    return [(float(step["step"]), float(step[name])) for step in history if step.get(name) is not None]
