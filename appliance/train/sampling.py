"""Which units take part in a step, and how their records are packed into micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from appliance.privacy.noise import Keystream


def poisson_units(units: int, rate: float, stream: Keystream) -> NDArray[np.int64]:
    """Indices of the sampled units: each takes part with probability `rate`, on its own. May be empty."""
    return np.flatnonzero(stream.uniform(units) < rate)


def some_records(records: Sequence[int], most: int, stream: Keystream) -> list[int]:
    """Up to `most` of a unit's records, drawn without replacement."""
    if len(records) <= most:
        return list(records)
    order = np.argsort(stream.uniform(len(records)), kind="stable")
    return [records[place] for place in order[:most]]


def pack(lengths: Sequence[Sequence[int]], budget: int) -> Iterator[list[int]]:
    """Cut groups of records into micro-batches of at most `budget` padded tokens.

    `lengths[g]` are the token counts of group g's records; each micro-batch is a list of groups. They
    are sorted by their longest record, so that little is padding; a group is never split. The order
    is free because the sum over units is.
    """
    batch: list[int] = []
    rows = 0
    for place in sorted(range(len(lengths)), key=lambda group: max(lengths[group])):
        if batch and (rows + len(lengths[place])) * max(lengths[place]) > budget:
            yield batch
            batch, rows = [], 0
        batch.append(place)
        rows += len(lengths[place])
    if batch:
        yield batch
