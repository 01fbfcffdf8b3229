"""Train, validation and test, 80/10/10, with every unit and every group in one of them only.

A unit goes where the hash of (seed, its name) says; with groups, where that of its home group says,
the least group it is in. So one patient more or less moves nobody else, and a patient who comes again
in the next version stands in the same split. A unit with records in several groups keeps those whose
group stands in its home's split; the others are left out, since they could not be kept apart.
Shares are therefore those of the units or groups on average, not exactly those of the records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from appliance.core.errors import DataRejected
from appliance.data.clean import folded
from appliance.data.records import Record

SPLITS = ("train", "val", "test")
SHARES = (0.8, 0.1, 0.1)


def split(records: Sequence[Record], seed: int) -> dict[str, list[Record]]:
    """The records of each split, in the order given; some may be left out where groups bind units.

    Without groups, records that are their own unit are held together by their text, so that one text
    never stands in two splits.

    Raises:
        DataRejected: fewer than three units or groups to tell apart.
    """
    owners = [_owner(record) for record in records]
    homes: dict[str, str] = {}
    for record, owner in zip(records, owners, strict=True):
        name = owner if record.group is None else f"group\0{record.group}"
        homes[owner] = min(homes.get(owner, name), name)
    draws = {name: _draw(seed, name) for name in set(homes.values())}
    if len(draws) < len(SPLITS):
        raise DataRejected(
            f"{len(records)} records of {len(draws)} separate units or groups cannot be split in three.",
            "Bring more records, or check the --unit and --group columns.",
        )
    place = {name: _place(draw) for name, draw in draws.items()}
    _fill_empty(place, draws)
    parts: dict[str, list[Record]] = {name: [] for name in SPLITS}
    for record, owner in zip(records, owners, strict=True):
        home = place[homes[owner]]
        name = f"group\0{record.group}"
        if record.group is None or place.get(name, _place(_draw(seed, name))) == home:
            parts[home].append(record)
    return parts


def _owner(record: Record) -> str:
    """What keeps a record together with others: its unit, or its text when it is its own unit."""
    if record.unit is not None and record.unit != own_unit(record.id):
        return f"unit\0{record.unit}"
    return f"text\0{folded(record.text)}" if record.group is None else own_unit(record.id)


def own_unit(record_id: str) -> str:
    """The unit of a record that is one by itself: a name that no column of a file can hold."""
    return f"record\0{record_id}"


def _place(draw: float) -> str:
    return "train" if draw < SHARES[0] else "val" if draw < SHARES[0] + SHARES[1] else "test"


def _fill_empty(place: dict[str, str], draws: dict[str, float]) -> None:
    """With few components the hash may leave a split empty: it takes the nearest one that can go."""
    for goal, wish in (("test", 1.0), ("val", SHARES[0] + SHARES[1] / 2), ("train", 0.0)):
        if goal in place.values():
            continue
        members = list(place.values())
        free = [name for name in place if members.count(place[name]) > 1]
        place[min(free, key=lambda name: (abs(draws[name] - wish), name))] = goal


def _draw(seed: int, name: str) -> float:
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
