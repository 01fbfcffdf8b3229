"""Padded tokens over real ones when a logical batch is cut into micro-batches.

256 records of log-normal length (median 90 tokens, sigma 1, at least 8, at most 512), by the token
budget of a micro-batch; mean over 20 batches. The peer fills micro-batches of the same budget in
sampling order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench.table import row, show

_BATCHES, _RECORDS, _CAP = 20, 256, 512


def run(options: Any) -> None:
    """Count; nothing is trained."""
    import numpy as np

    from appliance.train.sampling import pack

    draw = np.random.default_rng(0)
    drawn = draw.lognormal(np.log(90), 1.0, (_BATCHES, _RECORDS)).clip(8, _CAP).astype(int).tolist()
    rows = []
    for budget in (1024, 2048, 4096, 8192, 16384):
        ours = np.mean([_padded(line, pack([[size] for size in line], budget)) for line in drawn])
        peer = np.mean([_padded(line, _in_order(line, budget)) for line in drawn])
        case = f"micro-batches of {budget} tokens"
        rows.append(row("packing", case, "sorted/in order", float(ours), float(peer), "padded / real tokens"))
    show(rows, options.json)


def _padded(lengths: Sequence[int], batches: Iterator[list[int]]) -> float:
    spent = sum(len(batch) * max(lengths[place] for place in batch) for batch in batches)
    return spent / sum(lengths)


def _in_order(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for place, size in enumerate(lengths):
        if batch and (len(batch) + 1) * max([size, *(lengths[other] for other in batch)]) > budget:
            yield batch
            batch = []
        batch.append(place)
    yield batch
