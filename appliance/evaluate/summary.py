"""The parts of a report that speak of all models together: verdicts, the data, the limits. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.data import store
from appliance.data.records import Record
from appliance.evaluate.gate import Rule
from appliance.evaluate.report import Measured, groups_of, judge, model_row


def verdicts(
    measured: dict[str, Measured],
    against: str | None,
    records: Sequence[Record],
    clusters: NDArray[np.int64],
    rule: Rule,
    split: str,
    whole: int,
) -> dict[str, Any]:
    """The rows and gates of all models; `passed` when there are gates and all passed.

    Only the test split can pass a model: train and val have been looked at while it was made. And only
    all of it, its `whole` number of records: a sample could be drawn until it passes. Anything less is
    `partial`.
    """
    base = measured[against] if against else None
    groups = groups_of(records, clusters)
    reason = _partial(split, len(records), whole)
    rows, gates = [], []
    for name, one in measured.items():
        gate = None
        if one is not base and one.role != "reference":
            gate = judge(one, base, measured[one.f16] if one.f16 else None, clusters, groups, rule)
        if gate is not None and reason:
            gate = replace(gate, passed=False, notes=(*gate.notes, reason))
        if gate is not None:
            gates.append({"model": name, "partial": bool(reason), **gate.as_dict()})
        rows.append(model_row(one, base, clusters, groups, gate, rule))
    return {
        "models": rows,
        "gates": gates,
        "passed": bool(gates) and all(gate["passed"] for gate in gates),
        "partial": bool(reason),
    }


def _partial(split: str, scored: int, whole: int) -> str:
    """Why these records cannot pass a model; empty when they can."""
    if split != "test":
        return f"Judged on the {split} split: only the test split can pass a model."
    if scored < whole:
        return f"Judged on {scored} of the {whole} test records: only all of them can pass a model."
    return ""


def data_facts(
    dataset: store.Dataset,
    split: str,
    records: Sequence[Record],
    clusters: NDArray[np.int64],
    whole: int,
) -> dict[str, Any]:
    """What was measured on; `whole` is the number of records in the split."""
    return {
        "name": dataset.name,
        "version": dataset.version,
        "title": dataset.title,
        "split": split,
        "task": dataset.task,
        "labels": list(dataset.labels),
        "unit": dataset.unit,
        "synthetic": dataset.synthetic,
        "rows": len(records),
        "rows_in_split": whole,
        "units": len(np.unique(clusters)),
        "sha256": dataset.sha256,
    }


def limits(report: dict[str, Any], looks: int) -> list[str]:
    """What a reader must know before believing the figures."""
    data, rows = report["dataset"], report["models"]
    unit = data["unit"] or "record"
    found = [
        f"Intervals are 95 % percentile bootstrap intervals over {data['units']} test units ({unit});"
        " McNemar's test takes records as independent.",
        "The figures are exact counts over held-out records, which differential privacy does not"
        " protect: keep this report inside.",
    ]
    if data["synthetic"]:
        found.insert(0, "The records are synthetic: these figures say nothing about real ones.")
    if data["rows"] < data["rows_in_split"]:
        found.append(f"A sample of {data['rows']} of the {data['rows_in_split']} records was scored.")
    if data["unit"] is None:
        found.append("No privacy unit was declared: records of one person may count as independent.")
    if looks:
        found.append(
            f"{looks} earlier evaluation{'s' if looks > 1 else ''} used this dataset: choosing by repeated"
            " looks at one test split makes results look better than they are."
        )
    for count, text in (
        (max(row["cut"] for row in rows), "records were longer than the model's context and lost their end"),
        (max(row["not_fitting"] for row in rows), "records did not fit at all and count as wrong"),
    ):
        if count:
            found.append(f"{count} {text}.")
    if len({row["engine"] for row in rows}) > 1:
        found.append("Tokens a second compare only between rows of the same engine.")
    return found
