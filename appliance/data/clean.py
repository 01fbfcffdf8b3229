"""What is dropped before training, and why. Pure: records in, records and counts out.

A cleaning rule that looks at two patients at once ties them together: dropping Ben's message because
Ada wrote the same one means that Ada's presence decides what is learnt from Ben, and removing Ada
then changes two patients' data, not one. The privacy of training (add or remove one unit) would not
hold. So where a unit is declared, duplicates are dropped only within that unit. Where the record
itself is the unit, the set of distinct records changes by at most one when one record goes, so they
are dropped everywhere.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from appliance.core.errors import DataRejected
from appliance.data.records import Record, chat_text, spoken

REASONS = {
    "label": ("empty text", "empty answer"),
    "answer": ("empty text", "empty answer"),
    "text": ("empty text",),
    "chat": ("empty text", "no answer", "turns out of order", "empty turn"),
    "preference": ("empty text", "empty answer", "empty rejected answer", "both answers the same"),
}
EVERYWHERE = ("no unit", "too long", "duplicate")
LABEL_LENGTH = 64  # characters
LABEL_COUNT = 1000


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """`kept` in the order read; `dropped` counts by reason, every reason named even when 0."""

    kept: list[Record]
    dropped: dict[str, int]


def clean(records: Iterable[Record], *, task: str, has_unit: bool, max_characters: int) -> Cleaned:
    """Drop what cannot be learnt from: empty, without a unit, too long, exact duplicates.

    `has_unit` says that records name their unit (a patient column). Labels are trimmed, texts kept
    as they are; a conversation is parted into its last answer and what stands before. Two records are
    duplicates when unit, text and answers are equal after folding (`folded`).
    """
    dropped = dict.fromkeys((*REASONS[task], *EVERYWHERE), 0)
    kept: list[Record] = []
    seen: set[tuple[str, ...]] = set()
    for given in records:
        record, reason = _judged(given, task)
        texts = (record.text, record.answer, record.rejected)
        if not reason and has_unit and record.unit is None:
            reason = "no unit"
        elif not reason and max(map(len, texts)) > max_characters:
            reason = "too long"
        elif not reason:
            key = (record.unit or "" if has_unit else "", *map(folded, texts))
            if key in seen:
                reason = "duplicate"
            seen.add(key)
        if reason:
            dropped[reason] += 1
        else:
            kept.append(record)
    return Cleaned(kept=kept, dropped=dropped)


def _judged(record: Record, task: str) -> tuple[Record, str]:
    """The record as it is kept, and why it cannot be learnt from, if so, whatever else there is."""
    if not record.text.strip():
        return record, "empty text"
    if task == "text":
        return record, ""
    if task == "chat":
        return _parted(record)
    answer = record.answer.strip()
    if not answer:
        return record, "empty answer"
    if task == "preference" and not record.rejected.strip():
        return record, "empty rejected answer"
    if task == "preference" and answer == record.rejected.strip():
        return record, "both answers the same"
    return replace(record, answer=answer) if task == "label" else record, ""


def _parted(record: Record) -> tuple[Record, str]:
    """A conversation as its last answer and what stands before it; what stands behind is dropped."""
    messages = json.loads(record.text)
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if not messages:
        return record, "no answer"
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    if turns != ["user", "assistant"] * (len(turns) // 2):
        return record, "turns out of order"
    if not all(message["content"].strip() for message in messages):
        return record, "empty turn"
    return replace(record, text=chat_text(messages[:-1]), answer=messages[-1]["content"]), ""


def folded(text: str) -> str:
    """`text` without differences of case and white space, and of a conversation only what is said.

    So the same words are the same whether they came as a chat or as a question.
    """
    return " ".join(spoken(text).casefold().split())


def label_counts(records: Iterable[Record]) -> dict[str, int]:
    """Records per label, in order of label.

    Raises:
        DataRejected: fewer than two labels, or what stands there is free text, not labels.
    """
    counts = Counter(record.answer for record in records)
    if len(counts) < 2:
        raise DataRejected(
            f"The label column holds {len(counts)} label; two are needed.",
            "Check --label, or take --prompt and --answer for free text.",
        )
    if (
        len(counts) > LABEL_COUNT
        or max(map(len, counts)) > LABEL_LENGTH
        or len(counts) * 2 > sum(counts.values())
    ):
        raise DataRejected(
            f"The label column holds free text: {len(counts)} different values in {sum(counts.values())}"
            f" records, the longest of {max(map(len, counts))} characters.",
            f"Labels are at most {LABEL_COUNT}, each of at most {LABEL_LENGTH} characters and used twice on "
            "average. For free text take --prompt and --answer.",
        )
    return dict(sorted(counts.items()))


def only_labels(cleaned: Cleaned, labels: Collection[str]) -> Cleaned:
    """Without the records whose label is not one of the declared `labels`."""
    kept = [record for record in cleaned.kept if record.answer in labels]
    dropped = cleaned.dropped | {"label not declared": len(cleaned.kept) - len(kept)}
    return replace(cleaned, kept=kept, dropped=dropped)


def unused_labels(cleaned: Cleaned, labels: Collection[str]) -> list[str]:
    """The declared `labels` that no record has; that may be so, unless one is only misspelt.

    Raises:
        DataRejected: the column holds a label that is not declared and nearly the same.
    """
    counts = Counter(record.answer for record in cleaned.kept)
    unused = [label for label in labels if label not in counts]
    others = [
        label
        for label, count in counts.most_common()
        if count > 1 and label not in labels and len(label) <= LABEL_LENGTH
    ][:LABEL_COUNT]
    folded_others = {label.casefold(): label for label in others}
    for label in unused:
        if close := difflib.get_close_matches(label.casefold(), folded_others, n=1, cutoff=0.75):
            found = folded_others[close[0]]
            raise DataRejected(
                f"No record has the label {label}, but {counts[found]} have {found}.",
                f"Did you mean --labels ...,{found}? If not, take the records with {found} out of the file.",
            )
    return unused


def rare_labels(counts: dict[str, int], least: int) -> dict[str, int]:
    """The labels with fewer than `least` records; they are kept, and said."""
    return {label: count for label, count in counts.items() if count < least}
