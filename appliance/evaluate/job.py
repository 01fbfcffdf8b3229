"""The evaluation job: registry names and a dataset in, figures, verdicts and a report page out.

spec: {"models": [names], "against": name or null, "dataset", "version": int or null,
"split": "test", "limit": int or null, "gate": {settings of gate.Rule} or absent}. `against` is the
base that tuned models must beat; it and the F16 a quantised file is judged by are scored too, listed
or not. `limit` draws that many records with a fixed seed; such a report is `partial`, as is one on
another split than test: it passes nothing and replaces no verdict. Writes home.reports/<job>.json, .html
and -rows.json (evaluate/rows.py), then a row of `reports` for every judged model. A job run again starts
anew and replaces them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from appliance.core.db import reading, transaction
from appliance.core.errors import ConfigWrong, DataRejected, NotFound
from appliance.core.events import now
from appliance.core.files import write_bytes, write_json
from appliance.core.home import Home
from appliance.core.job import Job
from appliance.data import store
from appliance.data.records import Record
from appliance.evaluate import rows
from appliance.evaluate.backends import GgufScorer, TorchScorer
from appliance.evaluate.compare import clusters_of
from appliance.evaluate.gate import rule_from
from appliance.evaluate.page import render_page
from appliance.evaluate.report import Measured, check_same_tokens, training_curve
from appliance.evaluate.score import score, tokenise
from appliance.evaluate.summary import data_facts, limits, verdicts
from appliance.models import registry
from appliance.models.registry import Model
from appliance.models.task import Task, task_from
from appliance.security import audit
from appliance.security.people import mode

_FULL = ("F16", "BF16", "F32")
_SAMPLE_SEED = 7


def run(spec: dict[str, Any], job: Job) -> dict[str, Any]:
    """Score the models, judge them, write the report; returns it (see report.py for its fields).

    Raises:
        NotFound: a model or the dataset. ConfigWrong: a model tuned for other labels, wrong settings.
        DataRejected: the split is empty. ProofFailed: a GGUF that reads text otherwise than its base.
    """
    rule = rule_from(spec.get("gate") or {})
    dataset = store.get(job.home, spec["dataset"], spec.get("version"))
    split = spec.get("split") or "test"
    every = store.read(dataset, split)
    records = sample(every, spec.get("limit"))
    if not records:
        raise DataRejected(f"The {split} split of {dataset.title} has no records.", "Evaluate another split.")
    models = spec["models"]
    chains, f16 = _wanted(job.home, models, spec.get("against"))
    tasks = {name: task_for(chain, dataset) for name, chain in chains.items()}
    clusters = clusters_of([record.unit if record.unit is not None else record.group for record in records])
    told = _teller(job, len(records) * len(chains))
    measured = {}
    for number, (name, chain) in enumerate(chains.items()):
        role = "base" if name == spec.get("against") else "model" if name in models else "reference"
        measured[name] = _measure(
            chain, tasks[name], records, role, f16.get(name), told(name, number * len(records))
        )
    check_same_tokens(list(measured.values()))
    report = {
        "format": 1,
        "job": job.id,
        "created": now(),
        "dataset": data_facts(dataset, split, records, clusters, len(every)),
        "people": mode.statement(job.home),
        "against": spec.get("against"),
        "rule": asdict(rule),
        **verdicts(measured, spec.get("against"), records, clusters, rule, split, len(every)),
    }
    report["training"] = next(
        (curve for one in measured.values() if (curve := training_curve(one.chain))), []
    )
    report["limits"] = limits(report, _looks(job, dataset.title))
    report |= {
        "json": str(job.home.reports / f"{job.id}.json"),
        "html": str(job.home.reports / f"{job.id}.html"),
    }
    _publish(report, rows.content(report, list(measured.values())), job)
    return report


def sample(records: Sequence[Record], limit: int | None) -> list[Record]:
    """All records, or `limit` of them drawn with a fixed seed, in their order.

    Raises:
        ConfigWrong: the limit is not a positive number.
    """
    if limit is None or limit >= len(records):
        return list(records)
    if limit < 1:
        raise ConfigWrong(f"A limit of {limit} records leaves nothing to score.", "Give --limit 1 or more.")
    drawn = np.random.default_rng(_SAMPLE_SEED).permutation(len(records))[:limit]
    return [records[at] for at in sorted(drawn)]


def task_for(chain: Sequence[Model], dataset: store.Dataset) -> Task:
    """The task a model was tuned for, its labels in the dataset's order; a base takes the dataset's.

    Raises:
        ConfigWrong: the model was tuned for another kind of task or other labels.
    """
    told = next((step.facts["task"] for step in chain if step.facts.get("task")), None)
    if told is None:
        return Task(kind=dataset.task, prompt=dataset.prompt, labels=dataset.labels)
    task = task_from(told)
    answers = {task.kind, dataset.task} <= {"answer", "preference"}  # a preference's answer is the chosen one
    if (task.kind != dataset.task and not answers) or set(task.labels) != set(dataset.labels):
        raise ConfigWrong(
            f"{chain[0].name} was tuned for another task than {dataset.title}.",
            "Evaluate it on the dataset it was tuned on, or on one with the same labels.",
        )
    return Task(kind=task.kind, prompt=task.prompt, labels=dataset.labels)


def _wanted(
    home: Home, names: Sequence[str], against: str | None
) -> tuple[dict[str, tuple[Model, ...]], dict[str, str]]:
    """Lineages of all models to score, in scoring order, and what each quantised file is judged by."""
    if not names:
        raise ConfigWrong("No model was named.", "Give the name of a model: `cloister evaluate NAME`.")
    chains: dict[str, tuple[Model, ...]] = {}
    for name in ([against] if against else []) + list(names):
        chains.setdefault(name, tuple(registry.intact(home, name)))
    f16: dict[str, str] = {}
    for name, chain in list(chains.items()):
        model = chain[0]
        if model.kind == "gguf" and model.parent and model.facts.get("type") not in _FULL:
            f16[name] = next(
                (
                    other.name
                    for other in registry.models(home)
                    if other.kind == "gguf"
                    and other.parent == model.parent
                    and other.facts.get("type") in _FULL
                ),
                model.parent,
            )
            chains.setdefault(f16[name], tuple(registry.lineage(home, f16[name])))
    return chains, f16


def _measure(
    chain: tuple[Model, ...],
    task: Task,
    records: Sequence[Record],
    role: str,
    f16: str | None,
    told: Callable[[int], None],
) -> Measured:
    start = time.monotonic()
    scorer = open_scorer(chain)
    try:
        encoder = scorer.encoder(task)
        encoded = tokenise(encoder, records)
        told(0)
        scores = score(scorer, encoded, task, encoder.trie() if task.kind == "label" else None, told)
        seconds = time.monotonic() - start
        return Measured(
            chain=chain,
            task=task,
            scores=scores,
            speed=scorer.speed(),
            seconds=seconds,
            role=role,
            f16=f16,
            prompt_tokens=sum(len(row.tokens.prompt) for row in encoded if row.tokens),
        )
    finally:
        scorer.close()


def open_scorer(chain: Sequence[Model]) -> TorchScorer | GgufScorer:
    """The engine for a registry entry, given its lineage.

    Raises:
        NotFound: an adapter whose base is gone. ConfigWrong: an adapter's own file.
    """
    model = chain[0]
    registry.check_alone(model)
    if model.kind == "gguf":
        return GgufScorer(model.path)
    if model.whole:
        return TorchScorer(model.path)
    base = next((step for step in chain if step.kind == "base"), None)
    if base is None:
        raise NotFound(f"The base of {model.name} is not here.", "Import it with `cloister model import`.")
    return TorchScorer(base.path, model.path)


def _teller(job: Job, total: int) -> Callable[[str, int], Callable[[int], None]]:
    """Progress over all models with the seconds left, at most twice a second."""
    start = time.monotonic()
    last = [0.0]

    def for_model(name: str, before: int) -> Callable[[int], None]:
        def told(rows: int) -> None:
            done, at = before + rows, time.monotonic()
            if at - last[0] < 0.5 and done < total:
                return
            last[0] = at
            left = (at - start) / done * (total - done) if done else None
            job.progress("evaluate", done, total, model=name, left=left)

        return told

    return for_model


def _looks(job: Job, title: str) -> int:
    """How many other jobs have judged models on this dataset."""
    query = "SELECT COUNT(DISTINCT job) FROM reports WHERE dataset = ? AND job != ?"
    with reading(job.home) as link:
        return int(link.execute(query, (title, job.id)).fetchone()[0])


def _publish(report: dict[str, Any], each: dict[str, Any], job: Job) -> None:
    """Files first, then the rows that point to them, in one transaction with their audit lines."""
    page = render_page(report)
    write_json(job.home.reports / f"{job.id}.json", report)
    write_bytes(job.home.reports / f"{job.id}.html", page.encode())
    write_json(job.home.reports / f"{job.id}{rows.SUFFIX}", each)
    title = report["dataset"]["title"]
    with transaction(job.home) as link:
        for gate in report["gates"]:
            link.execute(
                "INSERT OR REPLACE INTO reports (model, dataset, created, job, passed, path, partial)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    gate["model"],
                    title,
                    report["created"],
                    job.id,
                    int(gate["passed"]),
                    report["html"],
                    int(gate["partial"]),
                ),
            )
            audit.record(
                link,
                who=job.who,
                what="model.evaluate",
                target=gate["model"],
                dataset=title,
                split=report["dataset"]["split"],
                passed=gate["passed"],
                partial=gate["partial"],
                job=job.id,
            )
