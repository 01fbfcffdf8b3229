"""What is dropped before training, and why. Pure: records in, records and counts out.

A cleaning rule that looks at two patients at once ties them together: dropping Ben's message because
Ada wrote the same one means that Ada's presence decides what is learnt from Ben, and removing Ada
then changes two patients' data, not one. The privacy of training (add or remove one unit) would not
hold. So where a unit is declared, duplicates are dropped only within that unit. Where the record
itself is the unit, the set of distinct records changes by at most one when one record goes, so they
are dropped everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from appliance.core.errors import DataRejected
from appliance.data.records import Record

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
    as they are. Two records are duplicates when unit, text and answer are equal after folding case
    and white space.
    """
    dropped = dict.fromkeys(("empty text", "empty answer", "no unit", "too long", "duplicate"), 0)
    kept: list[Record] = []
    seen: set[tuple[str, str, str]] = set()
    for record in records:
        answer = record.answer.strip() if task == "label" else record.answer
        reason = ""
        if not record.text.strip():
            reason = "empty text"
        elif not answer.strip():
            reason = "empty answer"
        elif has_unit and record.unit is None:
            reason = "no unit"
        elif len(record.text) > max_characters or len(answer) > max_characters:
            reason = "too long"
        else:
            key = (record.unit or "" if has_unit else "", folded(record.text), folded(answer))
            if key in seen:
                reason = "duplicate"
            seen.add(key)
        if reason:
            dropped[reason] += 1
        else:
            kept.append(record if answer == record.answer else replace(record, answer=answer))
    return Cleaned(kept=kept, dropped=dropped)


def folded(text: str) -> str:
    """`text` without differences of case and white space."""
    return " ".join(text.casefold().split())


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


def rare_labels(counts: dict[str, int], least: int) -> dict[str, int]:
    """The labels with fewer than `least` records; they are kept, and said."""
    return {label: count for label, count in counts.items() if count < least}
