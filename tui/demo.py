"""The whole chain on made-up records: import, train, evaluate, quantise, serve, ask.

Each step is the job an operator would start; what is there already is reused and said to be.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance.data import store
from appliance.models.registry import Model
from appliance.ops.jobs import JobView
from tui.endpoint import Endpoint, Reply
from tui.session import Session
from tui.words import proof_words, statement

DATASET = "demo-inbox"
ADAPTER = "demo-lora"
ROLES = {
    "base": "demo-base-f16",
    "f16": "demo-lora-f16",
    "int8": "demo-lora-q8_0",
    "int4": "demo-lora-q4_k_m",
}
_TYPES = {"f16": "F16", "int8": "Q8_0", "int4": "Q4_K_M"}
_QUESTIONS = 3

Follow = Callable[[str], JobView]
Say = Callable[[str], None]


def run(session: Session, *, follow: Follow, say: Say) -> dict[str, Any]:
    """Run the chain, or what is missing of it; returns the figures and where everything lies.

    `follow(job)` waits for a job and raises its error; `say(line)` tells people.
    """
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
        {ROLES[role] for role in _TYPES} <= names,
        lambda: session.start_quantising({"model": ADAPTER, "types": list(_TYPES.values())}),
    )
    step(
        4,
        "Convert the base, to measure against it",
        ROLES["base"] in names,
        lambda: session.start_quantising({"model": base.name, "types": ["F16"]}),
    )
    for role, model in _files(session).items():
        if role != "base":
            say(f"  {_proof_line(model)}")
    judged = {report["model"] for report in session.reports()}
    wanted = list(ROLES.values())
    step(
        5,
        "Evaluate base and tuned files, as served, on patients never seen",
        set(wanted[1:]) <= judged,
        lambda: session.start_evaluation(
            {
                "models": wanted,
                "against": ROLES["base"],
                "dataset": DATASET,
                "version": dataset.version,
                "split": "test",
                "limit": None,
            }
        ),
    )
    report = latest_report(session, ROLES["int4"])
    say("")
    say("6. Serve the INT4 file and ask it over HTTP")
    answers, served = _ask(session, dataset, say)
    return {
        "models": {role: _row(report, name, session.model(name)) for role, name in ROLES.items()},
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
    """The newest report that judged `model`."""
    path = Path(session.reports(model)[0]["path"]).with_suffix(".json")
    report: dict[str, Any] = json.loads(path.read_bytes())
    return report


def _files(session: Session) -> dict[str, Model]:
    return {role: session.model(name) for role, name in ROLES.items()}


def _proof_line(model: Model) -> str:
    return f"{model.name}: {model.size / 1e6:.1f} MB, {proof_words(model.facts['proof'])}"


def _row(report: dict[str, Any], name: str, model: Model) -> dict[str, Any]:
    found = next(row for row in report["models"] if row["name"] == name)
    wanted = ("name", "accuracy", "ci", "free_accuracy", "macro_f1", "perplexity", "tokens_per_second")
    return {key: found.get(key) for key in wanted} | {"size": model.size, "path": str(model.path)}


def _ask(session: Session, dataset: store.Dataset, say: Say) -> tuple[list[dict[str, Any]], str]:
    """Ask about one unseen message of each of three queues."""
    asked: dict[str, str] = {}
    for record in store.read(dataset, "test"):
        if record.answer not in asked and 40 <= len(record.text) <= 110:
            asked[record.answer] = record.text
        if len(asked) == _QUESTIONS:
            break
    answers = []
    with Endpoint(session, ROLES["int4"]) as endpoint:
        say(f"  {endpoint.url} ({endpoint.engine})")
        for label, text in asked.items():
            reply: Reply = endpoint.ask(text)
            say(f"  > {' '.join(text.split())}")
            say(f"    {reply.text} ({reply.confidence or 0:.0%} sure; filed under {label})")
            answers.append(
                {"question": text, "answer": reply.text, "expected": label, "confidence": reply.confidence}
            )
        return answers, endpoint.engine
