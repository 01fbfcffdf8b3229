"""One record: a text, its answer, whose it is; and its line of JSON.

`unit` is whose privacy is protected (a patient); `group` keeps records together in the split (a
disease, a household); `facts` hold what the report may slice by (date, sex, age band).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """`answer` is the label in a label task, free text otherwise; no `unit` means none was declared."""

    id: str
    text: str
    answer: str
    unit: str | None = None
    group: str | None = None
    source: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


def record_line(record: Record) -> str:
    """One line of JSON, without its line end; the same record always gives the same line."""
    return _encode(
        {
            "id": record.id,
            "text": record.text,
            "answer": record.answer,
            "unit": record.unit,
            "group": record.group,
            "source": record.source,
            "facts": dict(record.facts),
        }
    )


def record_from(line: str | bytes) -> Record:
    """The inverse of `record_line`."""
    value: dict[str, Any] = json.loads(line)
    return Record(**value)


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
