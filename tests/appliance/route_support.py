"""What the tests of routes share: a home with registered models and an evaluated dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from appliance.core.files import sha256_file, write_json
from appliance.core.home import Home
from appliance.data import store
from appliance.data.records import Record
from appliance.data.store import Dataset
from appliance.models import registry
from appliance.models.registry import Model

Judge = Callable[[Record], tuple[bool, float, float]]  # right, confidence, nats


def models(home: Home, *names: str) -> None:
    """Registered GGUF files (of a few bytes: routes never open them)."""
    for name in names:
        path = home.models / f"{name}.gguf"
        path.write_bytes(name.encode())
        registry.add(
            home,
            Model(name=name, kind="gguf", path=path, sha256=sha256_file(path), size=path.stat().st_size),
            who="mira",
        )


def dataset(home: Home, records: Sequence[Record], task: str = "label") -> Dataset:
    """Published as desk@1, all in the test split."""
    draft = home.datasets / ".draft"
    store.write_splits(draft, {"train": [], "val": [], "test": records})
    labels = tuple(sorted({record.answer for record in records})) if task == "label" else ()
    found, _ = store.publish(
        home, draft, name="desk", task=task, labels=labels, unit="patient",
        counts={"train": 0, "val": 0, "test": len(records)}, units={"train": 0, "val": 0, "test": 1},
        prompt="{text}", synthetic=True, facts={}, job="0001", who="mira",
    )  # fmt: skip
    return found


def evaluated(
    home: Home, data: Dataset, job: str, model: str, records: Sequence[Record], judge: Judge, seconds: float
) -> None:
    """The rows file that an evaluation of `model` leaves."""
    found = [judge(record) for record in records]
    write_json(
        home.reports / f"{job}-rows.json",
        {
            "format": 1,
            "job": job,
            "created": f"2026-01-01T00:00:{job[-2:]}",
            "dataset": data.title,
            "sha256": data.sha256,
            "split": "test",
            "task": data.task,
            "models": {
                model: {
                    "sha256": registry.get(home, model).sha256,
                    "ids": [record.id for record in records],
                    "right": [int(right) for right, _, _ in found],
                    "confidence": [sure for _, sure, _ in found] if data.task == "label" else None,
                    "nll": [nats for _, _, nats in found],
                    "seconds": seconds,
                }
            },
        },
    )


def whole_database(home: Home) -> str:
    """Everything the database says, as text."""
    from contextlib import closing

    from appliance.core.db import connect

    with closing(connect(home)) as link:
        tables = [row[0] for row in link.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [tuple(row) for table in tables for row in link.execute(f"SELECT * FROM {table}")]  # noqa: S608
    return json.dumps(rows, default=str)


SECRET = "Zbigniew"


def chance(record: Record, salt: str = "") -> float:
    """A number between 0 and 1 that goes with a record."""
    return hashlib.sha256(f"{record.id}{salt}".encode()).digest()[0] / 255


def records(count: int = 200) -> list[Record]:
    """Half plain questions, half hard ones; two of each unit."""
    words = ("where do I park today", "explain the interaction of my tablets")
    return [
        Record(
            id=f"r{n}",
            text=f"{SECRET} asks: {words[n % 2]} {n % 13}",
            answer=("yes", "no")[n % 3 == 0],
            unit=f"p{n // 2}",
        )
        for n in range(count)
    ]


def hard(record: Record) -> bool:
    return "explain" in record.text


def site(home: Home, task: str = "label", found: Sequence[Record] | None = None) -> list[Record]:
    """The small model fails on most hard questions and knows it; the large one is 10 x slower."""
    found = records() if found is None else list(found)
    models(home, "small", "large")
    data = dataset(home, found, task)

    def small(record: Record) -> tuple[bool, float, float]:
        right = chance(record) < (0.2 if hard(record) else 0.95)
        return right, 0.4 + 0.2 * chance(record, "c") if hard(record) else 0.95, 3.0 if hard(record) else 0.5

    def large(record: Record) -> tuple[bool, float, float]:
        return chance(record, "l") < 0.93, 0.9, 0.6

    evaluated(home, data, "0002", "small", found, small, 0.01)
    evaluated(home, data, "0003", "large", found[::-1], large, 0.1)
    return found
