"""Train, validation and test, 80/10/10, with every unit and every group in one of them only.

Records that share a unit or a group, directly or through others, form a component. A component goes
where the hash of (seed, its name) says. So one patient more or less moves nobody else, and a patient
who comes again in the next version stands in the same split: nobody moves from test to train.
Shares are therefore those of the components on average, not exactly those of the records.
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
    """The records of each split, in the order given.

    Records without a unit of their own are held together by their text, so that one text never
    stands in two splits.

    Raises:
        DataRejected: fewer than three components.
    """
    names = _components(records)
    draws = {name: _draw(seed, name) for name in set(names)}
    if len(draws) < len(SPLITS):
        raise DataRejected(
            f"{len(records)} records of {len(draws)} separate units or groups cannot be split in three.",
            "Bring more records, or check the --unit and --group columns.",
        )
    place = {name: _place(draw) for name, draw in draws.items()}
    _fill_empty(place, draws)
    parts: dict[str, list[Record]] = {name: [] for name in SPLITS}
    for record, name in zip(records, names, strict=True):
        parts[place[name]].append(record)
    return parts


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


def _components(records: Sequence[Record]) -> list[str]:
    """For each record the name of its component: the least of the names tied together."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    owners = []
    for record in records:
        own_unit = record.unit is not None and record.unit != record.id
        owner = f"unit\0{record.unit}" if own_unit else f"text\0{folded(record.text)}"
        owners.append(owner)
        first = root(owner)
        if record.group is not None:
            second = root(f"group\0{record.group}")
            low, high = sorted((first, second))
            parent[high] = low
    return [root(owner) for owner in owners]
