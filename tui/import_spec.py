"""The spec of an import job, from what was asked for on the command line or in the form. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def import_spec(
    *,
    path: Path | None,
    name: str,
    columns: Mapping[str, Any],
    unit_is_record: bool = False,
    unit_name: str | None = None,
    labels: str | None = None,
    prompt: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """See appliance/data/job.py. Without a path the made-up demo records; `labels` has commas in it."""
    spec: dict[str, Any] = {
        "path": None if path is None else str(path.absolute()),
        "demo": path is None,
        "name": name,
        "columns": {key: value for key, value in columns.items() if value},
        "unit_is_record": unit_is_record,
        "seed": seed,
    }
    if labels is not None:
        spec["labels"] = parts(labels)
    if unit_name is not None:
        spec["unit_name"] = unit_name
    if prompt is not None:
        spec["prompt"] = prompt
    return spec


def parts(text: str) -> Sequence[str]:
    """What stands between the commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
