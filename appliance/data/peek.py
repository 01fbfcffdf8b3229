"""A first look at a file of records: its columns, and a guess at what each of them is.

Names of columns and guesses go to people; what stands in the rows does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.core.errors import DataRejected
from appliance.core.phi import Phi
from appliance.data.columns import LONGEST_NAME, MOST_WORDS
from appliance.data.readers import first_rows

ROWS = 200
_FEW = 40  # labels at most, of which a column is guessed to hold one
_NAMES = {
    "text": ("text", "message", "note", "body", "content", "report"),
    "label": ("label", "queue", "category", "class", "diagnosis", "code", "target"),
    "prompt": ("prompt", "question", "ask", "instruction", "input"),
    "answer": ("answer", "reply", "response", "output", "completion"),
    "chat": ("messages", "chat", "conversation", "turns"),
    "chosen": ("chosen", "better", "preferred"),
    "rejected": ("rejected", "worse"),
    "unit": ("patient", "patient_id", "patientid", "mrn", "person", "person_id", "subject", "unit"),
    "date": ("date", "day", "created", "time", "timestamp"),
}


@dataclass(frozen=True, kw_only=True)
class Peek:
    """The columns of a file, and by role (`text`, `label`, `unit` ...) which one it seems to be."""

    columns: tuple[str, ...]
    guesses: dict[str, str]


def peek(path: Path) -> Peek:
    """Look at the first rows of the first file at `path`.

    Raises:
        NotFound, DataRejected: as `readers.read_records`; also a table without a header.
    """
    rows = first_rows(path, ROWS)
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    if any(len(name) > LONGEST_NAME or len(name.split()) > MOST_WORDS for name in columns):
        raise DataRejected(
            f"The first line of {path.name} looks like a record, not like names of columns.",
            "Put a header line first that names each column.",
        )
    return Peek(columns=columns, guesses=guesses(columns, rows))


def guesses(columns: Sequence[str], rows: Sequence[dict[str, Phi[Any]]]) -> dict[str, str]:
    """By name first; else the longest texts are the text, and what has few values is the label. Pure."""
    folded = {name.casefold().strip(): name for name in columns}
    found = {
        role: folded[known] for role, names in _NAMES.items() for known in names[::-1] if known in folded
    }
    values = {name: [str(row[name].plain) for row in rows if name in row] for name in columns}
    free = [name for name in columns if name not in found.values() and values[name]]
    if "text" not in found and free:
        found["text"] = max(free, key=lambda name: sum(map(len, values[name])) / len(values[name]))
        free.remove(found["text"])
    few = {name: len(set(values[name])) for name in free}
    if "label" not in found and (
        fit := [name for name in free if 2 <= few[name] <= min(_FEW, len(rows) / 2)]
    ):
        found["label"] = max(fit, key=lambda name: few[name])
    return found
