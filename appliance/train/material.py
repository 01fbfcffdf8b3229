"""A dataset as a run sees it: examples in tokens, by unit, with what did not fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from appliance.core.errors import DataRejected, PrivacyRefused
from appliance.data import store
from appliance.data.records import Record
from appliance.models.encoding import Encoder, Example
from appliance.train.settings import Settings

VALIDATION_RECORDS = 200
_PEOPLE = 10


@dataclass(frozen=True, kw_only=True)
class Material:
    """`groups` is what enters a step together, `units` how many people stand behind it.

    `cut` counts training records of which only a part fits, with `cut_tokens` left out of them in
    all; `left_out` those that cannot be used at all. Both are judged record by record.
    """

    groups: list[list[Example]]
    records: list[Example]
    validation: list[Example]
    units: int
    cut: int
    cut_tokens: int
    left_out: int

    @property
    def notes(self) -> list[str]:
        """What an operator must know about records that did not fit, in sentences."""
        told = []
        if self.cut:
            told.append(
                f"{self.cut:,} of {len(self.records):,} records are longer than the base reads; their ends"
                f" ({self.cut_tokens:,} tokens) are not learnt."
            )
        if self.left_out:
            told.append(f"{self.left_out:,} records are left out: their answer is empty or does not fit.")
        return told


def gather(
    dataset: store.Dataset, encoder: Encoder, settings: Settings, planted: Sequence[Record] = ()
) -> Material:
    """The training and validation records of `dataset` in tokens, with what is `planted` among them.

    Raises:
        DataRejected: no record can be used.
        PrivacyRefused: labels that could point at a few people (private runs).
    """
    training = store.read(dataset, "train")
    if settings.private and dataset.labels and not dataset.facts.get("labels_declared"):
        check_labels(training)
    return material_of(training + list(planted), store.read(dataset, "val"), encoder, settings)


def material_of(
    training: Sequence[Record], held_out: Sequence[Record], encoder: Encoder, settings: Settings
) -> Material:
    """These records in tokens; of `held_out` only the first VALIDATION_RECORDS.

    Raises:
        DataRejected: no record can be used.
    """
    encoded = [encode(encoder, record) for record in training]
    usable = [example for example in encoded if example is not None]
    if not usable:
        raise DataRejected(
            f"None of the {len(training)} training records can be used: answers are empty or do not fit.",
            "Raise --max-tokens, use a base with a longer context, or check which columns were imported.",
        )
    units = by_unit(
        (record, example) for record, example in zip(training, encoded, strict=True) if example is not None
    )
    validation = (encode(encoder, record) for record in held_out[:VALIDATION_RECORDS])
    lost = [sum(part.cut for part in example.sequences) for example in usable]
    return Material(
        groups=sampled_together(list(units.values()), settings),
        records=usable,
        validation=[example for example in validation if example is not None],
        units=len(units),
        cut=sum(tokens > 0 for tokens in lost),
        cut_tokens=sum(lost),
        left_out=len(training) - len(usable),
    )


def encode(encoder: Encoder, record: Record) -> Example | None:
    """One record in tokens; None when it cannot be used, which depends on this record alone."""
    try:
        return encoder.example(record.text, record.answer, record.rejected)
    except DataRejected:
        return None


def by_unit(records: Iterable[tuple[Record, Example]]) -> dict[str, list[Example]]:
    """Examples by unit; a record without one is a unit of its own (settled at import)."""
    units: dict[str, list[Example]] = {}
    for record, example in records:
        owner = record.unit if record.unit is not None else f"record:{record.id}"
        units.setdefault(owner, []).append(example)
    return units


def sampled_together(units: Sequence[list[Example]], settings: Settings) -> list[list[Example]]:
    """What enters a step together: a unit, or each of the first `records_per_unit` records of one."""
    if settings.sampling == "unit":
        return list(units)
    return [[record] for unit in units for record in unit[: settings.records_per_unit]]


def check_labels(training: Sequence[Record]) -> None:
    """Check that no label read from the records could point at a few people: names become the model's.

    Raises:
        PrivacyRefused: some labels belong to fewer than _PEOPLE units.
    """
    holders: dict[str, set[str]] = {}
    for record in training:
        holders.setdefault(record.answer, set()).add(record.unit or record.id)
    few = sum(len(units) < _PEOPLE for units in holders.values())
    if few:
        raise PrivacyRefused(
            f"{few} labels belong to fewer than {_PEOPLE} people each, and the names of labels become part of"
            " the model.",
            "Import the records again and say which labels there are: --labels billing,refill,...",
        )
