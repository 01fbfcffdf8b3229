"""Figures about records, for screens and reports; none of them holds a text.

They are exact counts of this site's own data, not private releases: they stay on the site.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from appliance.data.records import Record, spoken

PERCENTS = (10, 50, 90, 99, 100)


def figures(parts: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """Records, units, records per unit and lengths, over all splits and per split.

    Lengths are those of the texts; of a chat, of what is said before its last answer.
    """
    records = [record for part in parts.values() for record in part]
    texts = [spoken(record.text) for record in records]
    units = Counter(record.unit for record in records if record.unit is not None)
    return {
        "records": len(records),
        "units": len(units),
        "records_per_unit": spread(list(units.values())),
        "words": quantiles([len(text.split()) for text in texts]),
        "characters": quantiles([len(text) for text in texts]),
        "splits": {
            name: {"records": len(part), "units": len({record.unit for record in part} - {None})}
            for name, part in parts.items()
        },
    }


def spread(values: Sequence[int]) -> dict[str, float]:
    """Least, middle and greatest; empty for no values."""
    if not values:
        return {}
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def quantiles(values: Sequence[int]) -> dict[str, int]:
    """The values at `PERCENTS`, by nearest rank; empty for no values."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {f"p{percent}": ordered[-(-percent * len(ordered) // 100) - 1] for percent in PERCENTS}
