"""One record: a text, its answer, whose it is; and its line of JSON.

By task: "label" has a text and one of few labels; "answer" a question and free text; "preference" the
chosen answer in `answer` and the other one in `rejected`; "text" a running text and no answer; "chat"
the conversation before the last answer as JSON in `text` (`chat_text`) and that last answer.

`unit` is whose privacy is protected (a patient); `group` keeps records together in the split (a
disease, a household); `facts` hold what the report may slice by (date, sex, age band).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What `text`, `answer` and `rejected` hold, the module says; no `unit` means none was declared."""

    id: str
    text: str = field(repr=False)
    answer: str = field(repr=False)
    rejected: str = field(default="", repr=False)
    unit: str | None = field(default=None, repr=False)
    group: str | None = field(default=None, repr=False)
    source: str = ""
    facts: Mapping[str, str] = field(default_factory=dict, repr=False)


def record_line(record: Record) -> str:
    """One line of JSON, without its line end; the same record always gives the same line.

    `rejected` is in it only where there is one, so that lines of other tasks are what they always were.
    """
    other = {"rejected": record.rejected} if record.rejected else {}
    return _encode(
        {
            "id": record.id,
            "text": record.text,
            "answer": record.answer,
            **other,
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


def chat_text(messages: Iterable[Mapping[str, Any]]) -> str:
    """Messages (`role`, `content`) as compact JSON; what else they hold is left out."""
    return _encode([{"role": each["role"], "content": each["content"] or ""} for each in messages])


def spoken(text: str) -> str:
    """What is said in a conversation, without its JSON; any other text as it is."""
    if not text.startswith(_CHAT):
        return text
    try:
        return "\n".join(each["content"] for each in json.loads(text))
    except (ValueError, LookupError, TypeError, RecursionError):
        return text


_CHAT = '[{"role":"'
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
