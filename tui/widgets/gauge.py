"""A gauge that keeps its percentage at any width, and draws in ASCII on every terminal."""

from __future__ import annotations


def gauge(share: float, cells: int) -> str:
    """`[####....]`, `cells` wide between the brackets; only a full one looks full."""
    share = min(1.0, max(0.0, share))
    filled = cells if share >= 1 else min(cells - 1, round(share * cells))
    return f"[{'#' * filled}{'.' * (cells - filled)}]"


def gauge_line(label: str, share: float, note: str, width: int) -> str:
    """Label, percentage, gauge and note in at most `width` cells; the gauge gives way first."""
    head = f"{label:<5}{share:>4.0%}"
    room = width - len(head) - len(note) - 4
    bar = f" {gauge(share, min(10, room))}" if room >= 4 else ""
    return f"{head}{bar} {note}"[:width].rstrip()
