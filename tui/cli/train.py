"""cloister train, evaluate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from appliance.core.profile import check_site
from tui.cli.curves import room, terminal_curves
from tui.cli.face import Face, command
from tui.cli.lines import preview_lines
from tui.cli.train_options import takes_settings
from tui.words import NO_PRIVACY, gate_word

_CURVE_LINES = 12


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    command(app)(takes_settings(train))
    command(app)(evaluate)


def train(
    face: Face,
    dataset: Annotated[str, typer.Argument(help="Dataset, or dataset@version.")],
    base: Annotated[str | None, typer.Option(help="Base model; may be left out when there is one.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model made (default: method and job).")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the plan and start nothing.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start it and come back at once.")] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Fine-tune a base on a dataset, under differential privacy unless you say otherwise.

    The plan (who is protected, epsilon, noise, memory, time) is shown before anything starts, and every
    step is charged to the dataset's budget before it is taken. Ctrl-C stops; `cloister job resume` goes on.
    """
    spec = training_spec(face, dataset, base, name, settings)
    told = face.session.plan_training(spec)
    result = as_planned(face, told, partial(face.session.start_training, spec), plan=plan, detach=detach)
    if result is None:
        return
    say_trained(face, result)
    face.say(f"Next: cloister evaluate {result['name']}")
    face.result(result)


def say_trained(face: Face, result: dict[str, Any]) -> None:
    """The curves, the model made, what it cost."""
    made = face.session.model(result["name"])
    for line in terminal_curves(made.facts["training"]["history"], room(), _CURVE_LINES):
        face.say(line)
    if result.get("curves"):
        face.say(f"curves: {result['curves']}")
    face.wrap(f"{result['name']}: {result['steps']} steps on {made.dataset}", rest="  ")
    say_privacy(face, result["privacy"])


def as_planned(
    face: Face, told: dict[str, Any], start: Callable[[], str], *, plan: bool, detach: bool
) -> dict[str, Any] | None:
    """Show the plan `told`, start the job and follow it; its result with "job" and "plan".

    None where only the plan was wanted, or nobody waits for the job.
    """
    for line in preview_lines(told):
        face.say(line)
    if plan:
        face.result(told)
        return None
    job_id = start()
    if detach:
        face.say(f"Job {job_id} runs. Follow it with: cloister job tail {job_id}")
        face.result({"job": job_id, "plan": told})
        return None
    result: dict[str, Any] = face.follow(job_id, planned=told).end["result"]
    return result | {"job": job_id, "plan": told}


def training_spec(
    face: Face, dataset: str, base: str | None, name: str | None, settings: dict[str, Any]
) -> dict[str, Any]:
    """The spec of a training or search on `dataset`, or `dataset@version`."""
    check_site()
    chosen, _, version = dataset.partition("@")
    spec: dict[str, Any] = {"dataset": chosen, "base": face.session.base(base).name, "settings": settings}
    if version:
        spec["version"] = face.session.dataset(dataset).version
    if name is not None:
        spec["name"] = name
    return spec


def say_privacy(face: Face, privacy: dict[str, Any] | None) -> None:
    """One sentence on what a model's privacy is."""
    if privacy is None:
        face.wrap(NO_PRIVACY)
        return
    face.wrap(
        f"epsilon {privacy['epsilon']:.2f}, delta {privacy['delta']:.2g} for each {privacy['unit']}"
        f" (dataset so far: {privacy['epsilon_dataset']:.2f} of {privacy['epsilon_limit']:g})"
    )


def evaluate(
    face: Face,
    model: Annotated[str, typer.Argument(help="A base, adapter or GGUF; an adapter brings its GGUF files.")],
    against: Annotated[str | None, typer.Option(help="Compare with this model (default: its base).")] = None,
    dataset: Annotated[str | None, typer.Option(help="Default: the one it was trained on.")] = None,
    split: Annotated[str, typer.Option(help="test, or val while you are still choosing.")] = "test",
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="A quick look at N records, drawn with a fixed seed: a partial report passes nothing."
        ),
    ] = None,
) -> None:
    """Measure a model on held-out records: accuracy with interval, F1, perplexity, and the gate.

    An adapter is judged together with its base and every GGUF file made from it, as served.
    """
    spec = face.session.evaluation(model, against=against, dataset=dataset, split=split, limit=limit)
    job_id = face.session.start_evaluation(spec)
    report = face.follow(job_id).end["result"]
    say_report(face, report)
    face.result(report | {"job": job_id, "next": face.next(model)})


def say_report(face: Face, report: dict[str, Any]) -> None:
    """The report's table and gate."""
    face.table(
        ("model", "accuracy", "95 % interval", "free text", "macro F1", "perplexity", "size", "tokens/s"),
        [report_row(row) for row in report["models"]],
        "Nothing was scored.",
        spare=("free text", "tokens/s"),
    )
    for gate in report["gates"]:
        face.say(f"gate {gate_word(gate)}  {gate['model']}")
        for clause in gate["clauses"]:
            sign = "x" if clause["passed"] else " "
            face.wrap(f"{clause['name']}: need {clause['need']}, got {clause['got']}", f"  [{sign}] ")
    if report.get("partial"):
        data = report["dataset"]
        face.wrap(
            f"A partial look, at {data['rows']:,} of the {data['rows_in_split']:,} records of the"
            f" {data['split']} split: it passes nothing and replaces no verdict."
        )
    face.say(f"report: {report['html']}")


def report_row(row: dict[str, Any]) -> tuple[str, ...]:
    """One model's cells."""

    def number(key: str, form: str) -> str:
        value = row.get(key)
        return "-" if value is None else form.format(value)

    interval = row.get("ci")
    return (
        row["name"],
        number("accuracy", "{:.3f}"),
        f"{interval[0]:.3f}-{interval[1]:.3f}" if interval else "-",
        number("free_accuracy", "{:.3f}"),
        number("macro_f1", "{:.3f}"),
        number("perplexity", "{:.2f}"),
        "-" if row.get("size") is None else f"{row['size'] / 1e6:.1f} MB",
        number("tokens_per_second", "{:,.0f}"),
    )
