"""Feedback on its way into a dataset: listed, read, accepted or rejected, written out as records.

Only what a person has accepted is written out. A correction takes the place of the answer; an answer
without one is learnt only if its thumb is up. With `kind` "preference" the correction is the better and
the model's own answer the worse of two. Files are JSON lines with the columns that
`cloister data import` is told of (appliance/data/columns.py).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.core.db import reading, transaction
from appliance.core.errors import ConfigWrong, DataRejected, NotFound
from appliance.core.files import write_private
from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.security import audit
from appliance.security.people import guard
from appliance.serve.feedback import words_path

STATES = ("new", "accepted", "rejected")
# The columns of each kind of record, under the names that `cloister data import` asks for them by.
COLUMNS = {
    "label": ("text", "label"),
    "answer": ("prompt", "answer"),
    "chat": ("chat",),
    "preference": ("prompt", "chosen", "rejected"),
}


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """What was said of one answer, without its words. `key` is the id of the API key that asked."""

    id: str
    created: str
    key: str
    model: str
    answer: str
    thumb: int | None
    ratings: dict[str, int]
    corrected: bool
    state: str


@dataclass(frozen=True, kw_only=True)
class Words:
    """Record text: the conversation, the model's answer, the passages it was shown, the correction."""

    messages: tuple[dict[str, str], ...] = field(repr=False)
    text: str = field(repr=False)
    label: bool
    passages: tuple[dict[str, Any], ...] = field(repr=False)
    correction: str | None = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A written file: kind and number of records, `columns` by what they hold, why others were left out."""

    path: Path
    kind: str
    columns: dict[str, str]
    records: int
    left_out: dict[str, int]


def list_feedback(home: Home, state: str | None = None) -> list[Feedback]:
    """All feedback, or that in one of STATES, oldest first.

    Raises:
        ConfigWrong: there is no such state.
    """
    if state is not None and state not in STATES:
        raise ConfigWrong("There is no such state of feedback.", f"Choose one of {', '.join(STATES)}.")
    with reading(home) as link:
        query = "SELECT * FROM feedback WHERE ? IS NULL OR state = ? ORDER BY created, id"
        return [_feedback(dict(row)) for row in link.execute(query, (state, state))]


def read_feedback(home: Home, feedback_id: str) -> tuple[Feedback, Words]:
    """One feedback and its words.

    Raises:
        NotFound: there is none of that id. DataRejected: its file is missing or damaged.
    """
    with reading(home) as link:
        row = link.execute("SELECT * FROM feedback WHERE id = ?", (feedback_id,)).fetchone()
    if row is None:
        raise _unknown(feedback_id)
    return _feedback(dict(row)), _words(home, feedback_id)


def set_state(home: Home, ids: Sequence[str], state: str, who: str) -> None:
    """Accept or reject feedback: all of `ids` or, when one is unknown, none.

    Raises:
        NotFound: one is unknown; that is also so when its author has changed it meanwhile.
        ConfigWrong: the state is not "accepted" or "rejected".
    """
    if state not in STATES[1:]:
        raise ConfigWrong("Feedback can be accepted or rejected.", "Use one of those two.")
    with transaction(home) as link:
        guard.spend(link, home, who, "feedback.review", ", ".join(ids))
        for feedback_id in ids:
            row = link.execute("SELECT state FROM feedback WHERE id = ?", (feedback_id,)).fetchone()
            if row is None:
                raise _unknown(feedback_id)
            if row["state"] != state:
                link.execute("UPDATE feedback SET state = ? WHERE id = ?", (state, feedback_id))
                audit.record(link, who=who, what=f"feedback.{state}", target=feedback_id)


def export_records(
    home: Home,
    path: Path,
    who: str,
    *,
    kind: str | None = None,
    model: str | None = None,
    columns: Mapping[str, Any] | None = None,
) -> Exported:
    """Write what was accepted (of one `model`, if named) to a new file, private to this account.

    `kind` is one of COLUMNS; without it, labels or answers, whichever there are. `columns` are those of
    an earlier import, to write a file that can be read together with its files. Besides the text, each
    record has `feedback` (its id: one unit per answer) and `user` (the id of the API key that asked);
    where `columns` name a unit, that column holds the user.

    Raises:
        ConfigWrong: an unknown kind, labels and answers mixed, or the file is there already.
        DataRejected: nothing was accepted that can be learnt from, or a file of words is damaged.
    """
    content, done = _to_export(home, path, kind, model, columns)
    with transaction(home) as link:  # the line stands if the file does
        guard.spend(link, home, who, "feedback.export", path.name, content=_shown(content, done))
        audit.record(link, who=who, what="feedback.export", target=path.name, records=done.records)
        write_private(path, content)
    return done


def export_content(
    home: Home, path: Path, *, kind: str | None, model: str | None, columns: Mapping[str, Any] | None
) -> dict[str, str]:
    """What two people are shown who agree to what `export_records` would write now.

    Raises:
        ConfigWrong, DataRejected: as `export_records`.
    """
    return _shown(*_to_export(home, path, kind, model, columns))


def _shown(content: bytes, told: Exported) -> dict[str, str]:
    return {
        "file": str(told.path),
        "records": str(told.records),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _to_export(
    home: Home, path: Path, kind: str | None, model: str | None, columns: Mapping[str, Any] | None
) -> tuple[bytes, Exported]:
    if kind is not None and kind not in COLUMNS:
        raise ConfigWrong(f"There is no kind of record {kind}.", f"Choose one of {', '.join(COLUMNS)}.")
    if path.suffix != ".jsonl":
        raise ConfigWrong(f"The name {path.name} does not end in .jsonl.", "Write it like NAME.jsonl.")
    if path.exists():
        raise ConfigWrong(f"{path} is there already.", "Choose another name; nothing is overwritten.")
    if not path.parent.is_dir():
        raise ConfigWrong(f"There is no folder {path.parent}.", "Make it first, or choose another.")
    accepted = [each for each in list_feedback(home, "accepted") if model in (None, each.model)]
    found = [(each, _words(home, each.id)) for each in accepted]
    kind = kind or _only_kind([words for _, words in found])
    names = {name: str((columns or {}).get(name) or name) for name in COLUMNS[kind]}
    lines: list[str] = []
    left_out: Counter[str] = Counter()
    for said, words in found:
        record, reason = _record(said, words, kind)
        if reason:
            left_out[reason] += 1
            continue
        row = {names[name]: value for name, value in record.items()} | _about(said, columns or {})
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    if not lines:
        why = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise DataRejected(
            "Nothing accepted can be written as such records" + (f" ({why})." if why else "."),
            "Look at it with `cloister feedback list`, accept some, or choose another --as.",
        )
    told = Exported(path=path, kind=kind, columns=names, records=len(lines), left_out=dict(left_out))
    return "".join(lines).encode(), told


def _record(said: Feedback, words: Words, kind: str) -> tuple[dict[str, Any], str]:
    """The columns of a record, or why there is none."""
    if words.label != (kind == "label"):
        return {}, "labels" if words.label else "free answers"
    asked = [message["content"] for message in words.messages if message["role"] != "system"]
    better = words.correction or (words.text if said.thumb == 1 else None)
    if kind == "preference":
        if words.correction is None or words.correction == words.text.strip():
            return {}, "without a correction"
        if len(asked) != 1:
            return {}, "conversations of several turns"
        return {"prompt": asked[0], "chosen": words.correction, "rejected": words.text.strip()}, ""
    if better is None:
        return {}, "neither corrected nor thumbs-up"
    if kind == "chat":
        return {"chat": [*words.messages, {"role": "assistant", "content": better}]}, ""
    if kind == "label":
        return {"text": asked[-1], "label": better.strip()}, ""
    if len(asked) != 1:
        return {}, "conversations of several turns"
    return {"prompt": asked[0], "answer": better}, ""


def _about(said: Feedback, columns: Mapping[str, Any]) -> dict[str, str]:
    """Whose record it is; and the other columns of an earlier import, which must be in every file."""
    rest = dict.fromkeys([*columns.get("facts", ()), *filter(None, [columns.get("group")])], "")
    if columns.get("date"):
        rest[columns["date"]] = said.created[:10]
    if columns.get("unit"):
        rest[columns["unit"]] = f"user-{said.key}"
    return {"feedback": said.id, "user": said.key} | rest


def _only_kind(found: Sequence[Words]) -> str:
    kinds = sorted({"label" if words.label else "answer" for words in found})
    if len(kinds) > 1:
        raise ConfigWrong(
            "Both labels and free answers were accepted; one file holds one kind.",
            "Add --as label, --as answer, --as chat or --as preference; or name one --model.",
        )
    return kinds[0] if kinds else "answer"


def _words(home: Home, feedback_id: str) -> Words:
    try:
        value = json.loads(read_bytes(words_path(home, feedback_id)))
        return Words(
            messages=tuple(value["messages"]),
            text=value["text"],
            label=value["label"],
            passages=tuple(value["passages"]),
            correction=value["correction"],
        )
    except (OSError, ValueError, LookupError, TypeError) as problem:
        raise DataRejected(
            f"The words of feedback {feedback_id} are missing or damaged.",
            f"Restore {words_path(home, feedback_id).name} from a backup, or reject it.",
        ) from problem


def _feedback(row: dict[str, Any]) -> Feedback:
    return Feedback(**row | {"ratings": json.loads(row["ratings"]), "corrected": bool(row["corrected"])})


def _unknown(feedback_id: str) -> NotFound:
    shown = feedback_id if feedback_id.isalnum() and len(feedback_id) <= 20 else "of that id"
    return NotFound(
        f"There is no feedback {shown}.", "See `cloister feedback list`; changed feedback has a new id."
    )
