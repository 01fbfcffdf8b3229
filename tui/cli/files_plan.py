"""The plan of a quantising as lines: what Session.plan_quantising told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tui.cli.tables import WIDTH, table_lines, wrapped
from tui.words import bytes_text


def files_lines(told: Mapping[str, Any], width: int = WIDTH) -> list[str]:
    """The planned files as a table, what is in each, and where the memory goes; at most `width` wide."""
    device = told["device_memory"]
    columns = ["type", "size", "bits/weight", "memory", "fits here"]
    rows = []
    for file in told["files"]:
        cells = [
            file["type"],
            bytes_text(file["size"]),
            f"{file['bits_per_weight']:.2f}",
            f"about {bytes_text(file['memory'])}",
            "yes" if file["fits_here"] else "no",
        ]
        rows.append([*cells, "yes" if file["fits_device"] else "no"] if device else cells)
    lines = table_lines([*columns, f"fits {bytes_text(device)}"] if device else columns, rows, width=width)
    for file in told["files"]:
        lines += wrapped(histogram(file["histogram"]), f"  {file['type']:<7} ", width=width)
    lines += wrapped(
        f"file + {bytes_text(told['kv_bytes'])} for {told['slots']} contexts of {told['context']} tokens"
        f" + {bytes_text(told['compute_bytes'])} to compute;"
        f" {bytes_text(told['memory_here']['available'])} are free here",
        "memory: ",
        width=width,
    )
    return [*lines, "a fifth of the device's memory is left to its system"] if device else lines


def histogram(counts: Mapping[str, int]) -> str:
    """How many tensors of each type."""
    return ", ".join(f"{count} x {kind}" for kind, count in counts.items())
