"""Which of a site's other datasets hold the same records: a second name must not be a second budget.

Records are compared by hashes of text, answer and unit, free of case and white space; never by split,
order, seed or name. Where one of the two datasets knows no unit beyond the single record, units say
nothing and texts alone are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice

from appliance.core.errors import DataRejected
from appliance.core.home import Home
from appliance.core.reading import open_reading
from appliance.data import store
from appliance.data.clean import folded
from appliance.data.records import Record, record_from
from appliance.data.split import SPLITS, own_unit

_WORTH_SAYING = 0.01  # share of the new records
_LOOKED_AT = 100  # records that show whether a dataset has units


@dataclass(frozen=True, kw_only=True)
class _Marks:
    """Hashes of the new records: `whole` with their answers, `owned` without, one a record."""

    whole: frozenset[bytes]
    owned: tuple[bytes, ...]


def shared_records(
    home: Home, name: str, records: Iterable[Record], *, say: Callable[[str], None]
) -> dict[str, int]:
    """How many of `records`, new under `name`, lie in datasets of other names too, by title.

    Only what is more than 1 % is given; of several versions of one name, the one that shares most.

    Raises:
        DataRejected: all of them, and nothing else, are another dataset.
    """
    records = list(records)
    units_here = _has_units(records)
    marks: dict[bool, _Marks] = {}
    most: dict[str, tuple[int, str]] = {}
    for other in store.datasets(home):
        if other.name == name:
            continue
        try:
            units = units_here and _has_units(islice(_records(other), _LOOKED_AT))
            if units not in marks:
                marks[units] = _marks(records, units)
            same, count = _compared(marks[units], other, units)
        except (OSError, ValueError, TypeError):
            say(f"{other.title} could not be compared with these records: its files cannot be read.")
            continue
        if same:
            raise DataRejected(
                f"These records are already there as {other.title}.",
                "Use that dataset: its privacy budget counts every run on them. "
                f"For other settings, import them with --name {other.name}.",
            )
        if count > _WORTH_SAYING * len(records):
            most[other.name] = max(most.get(other.name, (0, "")), (count, other.title))
    return {title: count for count, title in most.values()}


def _marks(records: list[Record], units: bool) -> _Marks:
    return _Marks(
        whole=frozenset(_hash(record, units, record.answer) for record in records),
        owned=tuple(_hash(record, units) for record in records),
    )


def _compared(marks: _Marks, other: store.Dataset, units: bool) -> tuple[bool, int]:
    """Whether both hold the same records, and how many of the new ones lie in `other`."""
    wanted = set(marks.owned)
    found, whole, same = set[bytes](), set[bytes](), True
    for record in _records(other):
        if (mark := _hash(record, units)) in wanted:
            found.add(mark)
        if same:
            mark = _hash(record, units, record.answer)
            same = mark in marks.whole
            whole.add(mark)
    return same and len(whole) == len(marks.whole), sum(mark in found for mark in marks.owned)


def _records(dataset: store.Dataset) -> Iterator[Record]:
    for split in SPLITS:
        with open_reading(dataset.folder / f"{split}.jsonl") as stream:
            yield from map(record_from, stream)


def _has_units(records: Iterable[Record]) -> bool:
    return any(record.unit not in (None, own_unit(record.id)) for record in records)


def _hash(record: Record, units: bool, answer: str | None = None) -> bytes:
    parts = (folded(record.text), record.unit or "" if units else "", folded(answer or ""))
    return blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()
