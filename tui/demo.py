"""The whole chain on made-up records: import, train, evaluate, quantise, serve, ask.

Each step is the job an operator would start; what is there already is reused and said to be.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance.core.profile import check_site
from appliance.core.reading import read_bytes
from appliance.data import store
from appliance.models.registry import Model
from appliance.ops.jobs import JobView
from tui.endpoint import Endpoint
from tui.session import Session
from tui.words import proof_words, statement

DATASET = "demo-inbox"
ADAPTER = "demo-lora"
BASE_FILE = "demo-base-f16"
_TYPES = ("F16", "Q8_0", "Q4_K_M")
_QUESTIONS = 3

Follow = Callable[[str], JobView]
Say = Callable[[str], None]


def run(session: Session, *, follow: Follow, say: Say) -> dict[str, Any]:
    """Run the chain, or what is missing of it; returns the figures and where everything lies.

    `follow(job)` waits for a job and raises its error; `say(line)` tells people.

    Raises:
        ConfigWrong: the site profile is not installed; nothing was made then.
    """
    check_site()
    began = time.monotonic()
    reused: list[str] = []

    def step(number: int, title: str, there: bool, start: Callable[[], str]) -> None:
        say("")
        say(f"{number}. {title}")
        if there:
            reused.append(title)
            say("  there already, reused")
        else:
            follow(start())

    names = {model.name for model in session.models()}
    base = session.demo_base()
    say("Everything here is synthetic: made-up patients, made-up messages. Nothing leaves this machine.")
    datasets = {dataset.name for dataset in session.datasets()}
    step(
        1,
        "Import a clinic's inbox",
        DATASET in datasets,
        lambda: session.start_import({"path": None, "demo": True, "name": DATASET, "columns": {}}),
    )
    dataset = session.dataset(DATASET)
    say(
        f"  {sum(dataset.counts.values()):,} messages of {sum(dataset.units.values()):,} {dataset.unit}s,"
        f" {len(dataset.labels)} queues: {', '.join(dataset.labels)}"
    )
    step(
        2,
        "Fine-tune the base under differential privacy",
        ADAPTER in names,
        lambda: session.start_training({"dataset": DATASET, "base": base.name, "name": ADAPTER}),
    )
    privacy = session.model(ADAPTER).facts["privacy"]
    say(f"  {statement(privacy)}")
    step(
        3,
        "Convert to GGUF, quantise, prove each file",
        any(job.title == f"quantise {ADAPTER}" and job.state == "done" for job in session.jobs()),
        lambda: session.start_quantising({"model": ADAPTER, "types": list(_TYPES)}),
    )
    for model in _children(session, ADAPTER):
        say(f"  {model.name}: {model.size / 1e6:.1f} MB, {proof_words(model.facts['proof'])}")
    step(
        4,
        "Convert the base, to measure against it",
        BASE_FILE in names,
        lambda: session.start_quantising({"model": base.name, "types": ["F16"]}),
    )
    roles = _roles(session)
    judged = {report["model"] for report in session.reports() if not report["partial"]}
    wanted = [model.name for model in roles.values()]
    step(
        5,
        "Evaluate base and tuned files, as served, on patients never seen",
        set(wanted[1:]) <= judged,
        lambda: session.start_evaluation(
            {
                "models": wanted,
                "against": BASE_FILE,
                "dataset": DATASET,
                "version": dataset.version,
                "split": "test",
                "limit": None,
            }
        ),
    )
    report = latest_report(session, roles["int4"].name)
    say("")
    say(f"6. Serve the {roles['int4'].facts['type']} file and ask it over HTTP")
    answers, served = _ask(session, roles["int4"].name, dataset, say)
    return {
        "models": {role: _row(report, model) for role, model in roles.items()},
        "epsilon": privacy["epsilon"],
        "delta": privacy["delta"],
        "unit": privacy["unit"],
        "privacy": privacy,
        "gates": report["gates"],
        "answers": answers,
        "engine": served,
        "synthetic": True,
        "reused": reused,
        "report": report["html"],
        "home": str(session.home.path),
        "seconds": round(time.monotonic() - began, 1),
    }


def latest_report(session: Session, model: str) -> dict[str, Any]:
    """The newest report that judged `model` on the whole test split."""
    whole = next(report for report in session.reports(model) if not report["partial"])
    path = Path(whole["path"]).with_suffix(".json")
    report: dict[str, Any] = json.loads(read_bytes(path))
    return report


def _children(session: Session, parent: str) -> list[Model]:
    return [model for model in session.models() if model.kind == "gguf" and model.parent == parent]


def _roles(session: Session) -> dict[str, Model]:
    """The files of the table. `int4` is Q4_K_M, or the type the quantiser had to step up to."""
    files = {model.facts["type"]: model for model in _children(session, ADAPTER)}
    smallest = min(files.values(), key=lambda model: model.size)
    return {
        "base": session.model(BASE_FILE),
        "f16": files["F16"],
        "int8": files["Q8_0"],
        "int4": files.get("Q4_K_M", smallest),
    }


def _row(report: dict[str, Any], model: Model) -> dict[str, Any]:
    found = next(row for row in report["models"] if row["name"] == model.name)
    wanted = ("name", "accuracy", "ci", "free_accuracy", "macro_f1", "perplexity", "tokens_per_second")
    row = {key: found.get(key) for key in wanted}
    return row | {"type": model.facts["type"], "size": model.size, "path": str(model.path)}


def _ask(session: Session, model: str, dataset: store.Dataset, say: Say) -> tuple[list[dict[str, Any]], str]:
    """Ask about one unseen message of each of three queues."""
    asked: dict[str, str] = {}
    for record in store.read(dataset, "test"):
        if record.answer not in asked and 40 <= len(record.text) <= 110:
            asked[record.answer] = record.text
        if len(asked) == _QUESTIONS:
            break
    answers = []
    with Endpoint(session, model) as endpoint:
        say(f"  {endpoint.url} ({endpoint.engine})")
        for label, text in asked.items():
            reply = endpoint.ask(text)
            say(f"  > {' '.join(text.split())}")
            say(f"    {reply.text.strip()} ({reply.confidence or 0:.0%} sure; filed under {label})")
            answers.append(
                {
                    "question": text,
                    "answer": reply.text.strip(),
                    "expected": label,
                    "confidence": reply.confidence,
                }
            )
        return answers, endpoint.engine
