"""An evaluation report at a test site: scores are made up, all else is what the product makes of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from appliance.core.db import transaction
from appliance.core.files import write_bytes, write_json
from appliance.core.home import Home
from appliance.data.records import Record
from appliance.data.store import Dataset
from appliance.evaluate.backends import Speed
from appliance.evaluate.gate import Rule
from appliance.evaluate.page import render_page
from appliance.evaluate.report import Measured
from appliance.evaluate.score import Scores
from appliance.evaluate.summary import data_facts, limits, verdicts
from appliance.models import registry
from appliance.models.task import Task

ROWS = 240
LABELS = ("desk one", "desk two")
RIGHT = {"demo-base": 130, "lora-0002": 200, "lora-0002-q4_k_m": 198}


def add_report(home: Home, *, job: str = "0007", right: dict[str, int] | None = None) -> dict[str, Any]:
    """Enter a report on the models of app_site.models; `right` is how many records each has right."""
    records = [
        Record(id=f"r{at}", text="words", answer=LABELS[0], unit=f"p{at}", facts={"sex": "fm"[at % 2]})
        for at in range(ROWS)
    ]
    dataset = Dataset(
        name="inbox",
        version=1,
        folder=home.datasets / "inbox",
        task="label",
        labels=LABELS,
        unit="patient",
        counts={"test": ROWS},
        units={"test": ROWS},
        prompt="{text}",
        sha256="0" * 64,
        synthetic=True,
    )
    clusters, task = np.arange(ROWS), Task(kind="label", prompt="{text}", labels=LABELS)
    counts = RIGHT | (right or {})
    measured = {}
    for seed, name in enumerate(RIGHT):
        measured[name] = Measured(
            chain=tuple(registry.lineage(home, name)),
            task=task,
            scores=_scores(counts[name], 2.5 - 0.5 * seed),
            speed=Speed(prompt=4000.0, decode=50.0 * (seed + 1), threads=2),
            seconds=3.0,
            role="base" if name == "demo-base" else "model",
            f16="lora-0002" if name.endswith("q4_k_m") else None,
        )
    rule = Rule()
    report = {
        "format": 1,
        "job": job,
        "created": "2026-11-26T10:15:00+00:00",
        "dataset": data_facts(dataset, "test", records, clusters, ROWS),
        "people": "one person",
        "against": "demo-base",
        "rule": asdict(rule),
        **verdicts(measured, "demo-base", records, clusters, rule, "test", ROWS),
        "training": [
            {"step": step, "loss": 3.0 / step, "validation_loss": None, "epsilon": 1.0} for step in (1, 2, 3)
        ],
    }
    report["limits"] = limits(report, 2)
    path = home.reports / f"{job}.html"
    report |= {"json": str(path.with_suffix(".json")), "html": str(path)}
    write_json(path.with_suffix(".json"), report)
    write_bytes(path, render_page(report).encode())
    with transaction(home) as link:
        for gate in report["gates"]:
            link.execute(
                "INSERT INTO reports (model, dataset, created, job, passed, path, partial)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (gate["model"], "inbox@1", report["created"], job, int(gate["passed"]), str(path), 0),
            )
    return report


def _scores(hits: int, nll: float) -> Scores:
    right = np.zeros(ROWS, bool)
    right[np.random.default_rng(5).permutation(ROWS)[:hits]] = True
    return Scores(
        ids=tuple(f"r{at}" for at in range(ROWS)),
        labels=LABELS,
        gold=np.zeros(ROWS, np.int64),
        predicted=np.where(right, 0, 1),
        confidence=np.ones(ROWS),
        free=right,
        nll=np.full(ROWS, nll),
        tokens=np.full(ROWS, 2),
        fits=np.ones(ROWS, bool),
        cut=np.zeros(ROWS, bool),
        tokens_sha256="",
    )
