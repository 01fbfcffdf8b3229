"""What a newcomer should do next, judged from what is there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.data.store import Dataset
from appliance.models.registry import Model
from appliance.ops.jobs import JobView
from appliance.privacy.ledger import FEWEST_UNITS


@dataclass(frozen=True, kw_only=True)
class NextStep:
    """The one thing to do next: a sentence, why, and the CLI words for it."""

    text: str
    why: str
    command: str


def next_step(
    datasets: list[Dataset],
    models: list[Model],
    running: list[JobView],
    reports: list[dict[str, Any]],
    *,
    edge: bool = False,
) -> NextStep:
    """The first gap in the way from records to endpoint; `edge`: this installation can only serve."""
    busy = [job for job in running if job.state == "running"]
    if work := next((job for job in busy if job.kind != "serve"), None):
        return NextStep(
            text=f"Watch job {work.id}: {work.title}.",
            why="It goes on when you leave.",
            command=f"cloister job tail {work.id}",
        )
    if edge:
        return _step_on_edge(models, running, reports)
    if not datasets:
        return NextStep(
            text="Import your records.",
            why="Everything starts from the site's own records; `cloister demo` shows it on made-up ones.",
            command="cloister data import FILE --name NAME --text COLUMN --label COLUMN --unit COLUMN",
        )
    bases = [model for model in models if model.kind == "base"]
    if not bases:
        return NextStep(
            text="Import a base model.",
            why="Training starts from a model you bring, or from the small one that is shipped.",
            command="cloister model import demo --name demo-base",
        )
    adapters = [model for model in models if model.trained]
    if not adapters:
        ready = [data for data in datasets if data.unit and not too_few(data.unit, data.units)]
        if not ready:
            return _more_records(datasets[-1])
        return NextStep(
            text=f"Train on {ready[-1].name}.",
            why="Under differential privacy unless you say otherwise; the plan is shown first.",
            command=f"cloister train {ready[-1].name} --base {bases[-1].name}",
        )
    return step_for(adapters[-1], models, running, reports)


def too_few(unit: str, units: Mapping[str, int]) -> str:
    """Why training under differential privacy would be refused on so many people of each split, or ""."""
    here = units.get("train", FEWEST_UNITS)
    if here >= FEWEST_UNITS:
        return ""
    return f"{here} {unit}s to train on are too few for differential privacy: {FEWEST_UNITS} are needed."


def _more_records(data: Dataset) -> NextStep:
    if data.unit is None:
        text, why = f"Import {data.name} again and say whose record each is.", "Privacy protects people."
    else:
        text, why = f"Import more records than {data.name}.", too_few(data.unit, data.units)
    return NextStep(
        text=text,
        why=f"{why} Training without privacy: n in 3 Train. With other sites: cloister federate.",
        command="cloister data import FILE --name NAME --text COLUMN --label COLUMN --unit COLUMN",
    )


def _step_on_edge(models: list[Model], running: list[JobView], reports: list[dict[str, Any]]) -> NextStep:
    files = [model for model in models if model.kind == "gguf" and not model.facts.get("embeds")]
    if not files:
        return NextStep(
            text="Import a GGUF file.",
            why="This is the edge profile: it only serves. Files are made where the site profile is.",
            command="cloister model import FILE.gguf --name NAME",
        )
    newest = files[-1].name
    serving = next((job for job in running if job.state == "running" and job.kind == "serve"), None)
    if serving is not None:
        return NextStep(
            text="Ask the model.", why=f"Job {serving.id} is serving.", command=f"cloister chat {newest}"
        )
    passed = any(each["model"] == newest and each["passed"] and not each.get("partial") for each in reports)
    return NextStep(
        text=f"Serve {newest}.",
        why="An OpenAI-compatible endpoint on this machine.",
        command=f"cloister serve {newest}" + ("" if passed else " --ungated"),
    )


def step_for_untuned(base: str, running: list[JobView]) -> NextStep:
    """After quantising a base that was not tuned here: there is nothing of this site to judge it on."""
    serving = next((job for job in running if job.state == "running" and job.kind == "serve"), None)
    if serving is not None and base in serving.title:
        return NextStep(
            text="Ask the model.", why=f"Job {serving.id} is serving.", command=f"cloister chat {base}"
        )
    return NextStep(
        text=f"Serve {base} as it is.",
        why="It was not tuned here, so that there is no gate it could pass.",
        command=f"cloister serve {base} --ungated",
    )


def step_for(
    newest: Model, models: list[Model], running: list[JobView], reports: list[dict[str, Any]]
) -> NextStep:
    """The first gap in the way from a trained model to its endpoint. Partial reports fill none."""
    serving = next((job for job in running if job.state == "running" and job.kind == "serve"), None)
    files = [model for model in models if model.kind == "gguf" and model.parent == newest.name]
    whole = [report for report in reports if not report.get("partial")]
    passed = {report["model"] for report in whole if report["passed"]}
    judged = {report["model"] for report in whole}
    family = {newest.name, *(file.name for file in files)}
    if not family & judged:
        return NextStep(
            text=f"Evaluate {newest.name} against its base.",
            why="A model is served once a report says that it is clearly better than its base: the gate.",
            command=f"cloister evaluate {newest.name}",
        )
    if not family & passed:
        return NextStep(
            text=f"{newest.name} did not pass the gate: train again with more records or epsilon.",
            why="The report says by how much it fell short.",
            command=f"cloister model card {newest.name}",
        )
    if not files:
        return NextStep(
            text=f"Quantise {newest.name}.",
            why="That makes smaller files of it (INT8, INT4), which a machine without a GPU can serve.",
            command=f"cloister quantize {newest.name}",
        )
    if not any(file.name in passed for file in files):
        if all(file.name in judged for file in files):
            return NextStep(
                text=f"No file of {newest.name} passed the gate: quantise it to a larger type.",
                why="The report says by how much they fell short.",
                command=f"cloister model card {files[-1].name}",
            )
        return NextStep(
            text=f"Evaluate the GGUF files of {newest.name}.",
            why="They are judged as they are served.",
            command=f"cloister evaluate {newest.name}",
        )
    if serving is None:
        return NextStep(
            text=f"Serve {newest.name}.",
            why="An OpenAI-compatible endpoint on this machine.",
            command=f"cloister serve {newest.name}",
        )
    return NextStep(
        text="Ask the model.",
        why=f"Job {serving.id} is serving.",
        command=f"cloister chat {newest.name}",
    )
