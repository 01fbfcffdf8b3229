"""The loss chart, in characters every terminal has: `-` training, `o` validation."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]


def draw_chart(losses: Sequence[Point], validation: Sequence[Point], width: int, height: int) -> list[str]:
    """`height` lines of at most `width` cells: values on the left, steps below.

    Too little room or fewer than two points give a word instead of a picture.
    """
    columns, rows = width - 7, height - 1
    if columns < 8 or rows < 2:
        return []
    points = [*losses, *validation]
    if len(losses) < 2:
        return ["The curve begins with the second step."]
    low, high = min(value for _, value in points), max(value for _, value in points)
    first, last = losses[0][0], max(step for step, _ in points)
    span, rise = (last - first) or 1.0, (high - low) or 1.0
    cells = [[" "] * columns for _ in range(rows)]
    for marks, sign in ((losses, "-"), (validation, "o")):
        for step, value in marks:
            column = round((step - first) / span * (columns - 1))
            row = round((high - value) / rise * (rows - 1))
            cells[row][max(0, column)] = sign
    labels = {0: high, rows // 2: high - rise * (rows // 2) / (rows - 1), rows - 1: low}
    lines = [
        f"{labels[row]:5.2f}|{''.join(line)}" if row in labels else f"     |{''.join(line)}"
        for row, line in enumerate(cells)
    ]
    end = f" {last:g}"
    return [line.rstrip() for line in lines] + [f"     +{'-' * (columns - len(end))}{end}"]
