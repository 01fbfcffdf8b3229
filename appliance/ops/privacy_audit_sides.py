"""Records for a membership test: some that were trained on, some that were not, alike in all else.

The split sends a unit to one side by the hash of its name, which is the coin the test needs. Each
side gives one record a unit, its first. A record that reads nearly like one of another unit in the
training split is left out on both sides alike: among the held-out ones it would be half a member.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.data import store
from appliance.data.records import Record, spoken

_SEED = 11
_NEAR = 0.8  # Jaccard similarity of words and pairs of words
_FEATURES = 2**20
_CHUNK = 4096


@dataclass(frozen=True, kw_only=True)
class Sides:
    """`members` were in the training split, `others` in the test split; `near` were left out."""

    members: tuple[Record, ...]
    others: tuple[Record, ...]
    near: int


def sides(dataset: store.Dataset, limit: int) -> Sides:
    """At most `limit` records a side, drawn with a fixed seed."""
    training = store.read(dataset, "train")
    members, others = (_one_each(part, limit) for part in (training, store.read(dataset, "test")))
    asked = [*members, *others]
    near = near_others(asked, training) if asked and training else np.zeros(0, dtype=np.bool_)
    kept = [None if close else record for record, close in zip(asked, near, strict=True)]
    return Sides(
        members=tuple(record for record in kept[: len(members)] if record),
        others=tuple(record for record in kept[len(members) :] if record),
        near=int(near.sum()),
    )


def near_others(records: Sequence[Record], training: Sequence[Record]) -> NDArray[np.bool_]:
    """Which of `records` read nearly like a record that another unit has in `training`."""
    mine, theirs = _shingles(records), _shingles(training)
    sizes, their_sizes = (np.asarray(part.sum(axis=1)).ravel() for part in (mine, theirs))
    found = np.zeros(len(records), dtype=np.bool_)
    for start in range(0, len(training), _CHUNK):
        shared = (mine @ theirs[start : start + _CHUNK].T).tocoo()
        union = sizes[shared.row] + their_sizes[start + shared.col] - shared.data
        for row, column in zip(*(at[shared.data >= _NEAR * union] for at in shared.coords), strict=True):
            if _owner(records[row]) != _owner(training[start + column]):
                found[row] = True
    return found


def _one_each(records: Sequence[Record], limit: int) -> list[Record]:
    firsts: dict[str, Record] = {}
    for record in records:
        firsts.setdefault(_owner(record), record)
    every = list(firsts.values())
    drawn = np.random.default_rng(_SEED).permutation(len(every))[:limit]
    return [every[at] for at in sorted(drawn)]


def _owner(record: Record) -> str:
    return record.unit if record.unit is not None else f"record:{record.id}"


def _shingles(records: Sequence[Record]) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    words = HashingVectorizer(
        n_features=_FEATURES,
        alternate_sign=False,
        binary=True,
        norm=None,
        ngram_range=(1, 2),
        token_pattern=r"\S+",  # noqa: S106 - no password, a pattern
    )
    return words.transform([spoken(record.text) for record in records])
