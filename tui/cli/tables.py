"""Tables as lines of text that fit a terminal of 80 columns, however long the names are. Pure.

What does not fit is first made to fit by leaving columns out that the caller can spare, and says so;
where that is not enough, each row takes several lines and every column is there.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 79  # the 80th column would wrap on some terminals
_GAP, _INDENT = "  ", "  "


def table_lines(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, spare: Sequence[str] = (), width: int = WIDTH
) -> list[str]:
    """The table in lines of at most `width`; `spare` names columns to leave out, in that order."""
    texts = [list(columns), *[[str(cell) for cell in row] for row in rows]]
    # One line a row, else the first column over all others in one line, else as many lines as it takes.
    for make in (_flat, _two_lines):
        for count in range(len(spare) + 1):
            gone = spare[:count]
            kept = [place for place, name in enumerate(columns) if name not in gone]
            lines = make([[row[place] for place in kept] for row in texts], width)
            if lines and gone:
                names = ", ".join(name for name in columns if name in gone)
                lines += textwrap.wrap(f"left out to fit: {names} (--json has all)", width)
            if lines:
                return lines
    return _many_lines(texts, width)


def wrapped(text: str, first: str = "", rest: str | None = None, width: int = WIDTH) -> list[str]:
    """`text` behind `first`, its further lines behind `rest` (else as far in as `first`), words whole."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=" " * len(first) if rest is None else rest,
        break_on_hyphens=False,
        break_long_words=False,  # a path or a name is there to be copied
    )


def paragraphs(text: str, width: int) -> list[str]:
    """A person's or a model's text, broken as by `wrapped`; its own breaks stay, empty lines go."""
    return [line for part in text.split("\n") for line in wrapped(part, width=width)]


def _widths(texts: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[place]) for row in texts) for place in range(len(texts[0]))]


def _wide(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _flat(texts: Sequence[Sequence[str]], width: int) -> list[str]:
    widths = _widths(texts)
    if _wide(widths) > width:
        return []
    head, *rows = [_line(row, widths) for row in texts]
    return [head, _GAP.join("-" * size for size in widths), *rows]


def _two_lines(texts: Sequence[Sequence[str]], width: int) -> list[str]:
    first, *widths = _widths(texts)
    if first > width or _wide(widths) + len(_INDENT) > width:
        return []
    lines = [line for row in texts for line in (row[0], _INDENT + _line(row[1:], widths))]
    return [*lines[:2], "-" * width, *lines[2:]]


def _many_lines(texts: Sequence[Sequence[str]], width: int) -> list[str]:
    """Columns in groups that fit a line, all but the first set in; a cell longer than a line is cut."""
    widths = [min(size, width - len(_INDENT)) for size in _widths(texts)]
    groups: list[list[int]] = [[]]
    for place, size in enumerate(widths):
        room = width - (len(_INDENT) if len(groups) > 1 else 0)
        if groups[-1] and _wide([*(widths[at] for at in groups[-1]), size]) > room:
            groups.append([])
        groups[-1].append(place)
    lines: list[str] = []
    for number, row in enumerate(texts):
        for level, group in enumerate(groups):
            cells = [textwrap.wrap(row[place], widths[place]) or [""] for place in group]
            for at in range(max(map(len, cells))):
                parts = [cell[at] if at < len(cell) else "" for cell in cells]
                line = _line(parts, [widths[place] for place in group])
                lines.append((_INDENT if level or at else "") + line if line else "")
        if number == 0:
            lines.append("-" * width)
    return [line for line in lines if line]
