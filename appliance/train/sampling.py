"""Which units take part in a step, and how their records are packed into micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from appliance.privacy.noise import Keystream

_PADDED = 1.1  # padded tokens a real one, at most
_WORTHWHILE = 1024  # tokens; a smaller micro-batch costs more by itself than padding does


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
    """Cut groups of records into micro-batches of at most `budget` padded tokens, few of them padding.

    `lengths[g]` are the token counts of group g's records; each micro-batch is a list of groups. They
    are sorted by their longest record, and a micro-batch that is large enough to compute well ends
    where one more group would make it more than a tenth padding; a group is never split. The order is
    free because the sum over units is.
    """
    batch: list[int] = []
    rows = real = 0
    for place in sorted(range(len(lengths)), key=lambda group: max(lengths[group])):
        own = lengths[place]
        padded = (rows + len(own)) * max(own)
        wasteful = padded > _PADDED * (real + sum(own)) and real >= _WORTHWHILE
        if batch and (padded > budget or wasteful):
            yield batch
            batch, rows, real = [], 0, 0
        batch.append(place)
        rows, real = rows + len(own), real + sum(own)
    if batch:
        yield batch
