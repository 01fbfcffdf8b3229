"""Text cut to terminal cells: a letter may take two of them, or none."""

from __future__ import annotations

from rich.cells import cell_len, chop_cells, set_cell_size


def fit(text: str, width: int) -> str:
    """`text` in at most `width` cells; what is cut off is told by two dots."""
    if cell_len(text) <= width:
        return text
    if width <= 2:
        return "." * max(0, width)
    return chop_cells(text, width - 2)[0] + ".."


def column(text: str, width: int) -> str:
    """`text` in exactly `width` cells."""
    return set_cell_size(fit(text, width), max(0, width))
