"""cloister model: import, list, card, remove."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.core.errors import ConfigWrong
from appliance.models.registry import Model
from tui.cli.curves import room, terminal_curves
from tui.cli.face import Face, command
from tui.words import (
    NO_PRIVACY,
    bytes_text,
    figure,
    gate_word,
    privacy_lines,
    removal_lines,
    standing,
    training_lines,
)

_CURVE_LINES = 12
_NOT_OF_NAMES, _LONGEST_NAME = re.compile(r"[^A-Za-z0-9._-]+"), 64

app = typer.Typer(help="Bases, adapters and GGUF files of this site.", no_args_is_help=True)


@command(app, "import")
def import_(
    face: Face,
    path: Annotated[
        Path, typer.Argument(help="A model folder, a .gguf file, or `demo` for the shipped base.")
    ],
    name: Annotated[
        str | None,
        typer.Option(
            help="What to call it. Default: demo-base for `demo`, a .gguf file's own name for that."
        ),
    ] = None,
) -> None:
    """Import a base model (safetensors folder) or a GGUF file, after checking it.

    Pickled weights, missing shards, damaged headers and folders with code of their own are refused.
    """
    if str(path) == "demo" and not path.exists():
        known = {model.name for model in face.session.models()}
        model = face.session.demo_base(name)
        if model.name in known:
            face.say(f"{model.name} is there already; nothing was changed.")
    else:
        if name is None and path.suffix.lower() == ".gguf":
            name = _NOT_OF_NAMES.sub("-", path.stem).strip("-._")[:_LONGEST_NAME]
        if not name:
            raise ConfigWrong("The model needs a name.", "Add --name NAME.")
        model = face.session.import_model(path, name)
    face.say(f"{model.name}: {model.kind}, {model.size / 1e6:.1f} MB, sha256 {model.sha256[:12]}")
    face.result({"name": model.name, "kind": model.kind, "size": model.size, "sha256": model.sha256})


@command(app, "list")
def list_(face: Face) -> None:
    """List every model with where it came from."""
    models = face.session.models()
    scores = standing(face.session.reports())
    rows: list[dict[str, Any]] = []
    for model in models:
        privacy = model.facts.get("privacy") or {}
        report = scores.get(model.name)
        rows.append(
            {
                "name": model.name,
                "kind": model.kind,
                "type": model.facts.get("type"),
                "size": model.size,
                "gate": None if report is None else gate_word(report),
                "epsilon": privacy.get("epsilon"),
                "parent": model.parent,
                "dataset": model.dataset,
            }
        )
    face.table(
        ("name", "kind", "type", "size", "gate", "epsilon", "from", "dataset"),
        [
            (
                row["name"],
                row["kind"],
                row["type"] or "-",
                bytes_text(row["size"]),
                row["gate"] or "-",
                "-" if row["epsilon"] is None else f"{row['epsilon']:.2f}",
                row["parent"] or "-",
                row["dataset"] or "-",
            )
            for row in rows
        ],
        "No models yet. Take the shipped base: cloister model import demo",
        spare=("dataset", "from", "type"),
    )
    face.result({"models": rows})


def _say_privacy(face: Face, chain: list[Model]) -> None:
    """The claim of the nearest training; that there is none where it was tuned without, or not at all."""
    if not any(step.trained for step in chain):
        face.say("  privacy  not tuned here: no training here put records of this site into it")
        return
    for step in chain:
        if step.kind == "base" or "privacy" not in step.facts:
            continue
        if step.facts["privacy"] is None:
            lines = textwrap.wrap(NO_PRIVACY, 79, initial_indent="  privacy  ", subsequent_indent=" " * 11)
        else:
            lines = privacy_lines(step.facts["privacy"])
        for line in lines:
            face.say(line)
        return


@command(app)
def remove(
    face: Face,
    name: Annotated[str, typer.Argument(help="A model's name.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
) -> None:
    """Remove a model: its entry, its files and what its reports allow. Written to the audit log.

    Refused while a job or an endpoint uses it, while another model was made from it, and while a route
    leads to it. Privacy that was spent on it stays spent.
    """
    going = face.session.plan_removal(name)
    first, *rest = removal_lines(going)
    face.say(first)
    for line in rest:
        face.wrap(line, "  ", "  ")
    if not yes and not _agreed(face, name):
        return
    face.session.remove_model(name)
    face.say(f"{name} is removed.")
    face.result({"name": name, "removed": True, "files": going.files, "size": going.size})


def _agreed(face: Face, name: str) -> bool:
    if face.as_json or not sys.stdin.isatty():
        raise ConfigWrong(
            f"Nothing was removed: {name} and its files would be gone for good.",
            "Add --yes if that is meant.",
        )
    if typer.confirm("Remove it for good?", default=False):
        return True
    face.say("Nothing was removed.")
    return False


@command(app)
def card(face: Face, name: Annotated[str, typer.Argument(help="A model's name.")]) -> None:
    """Show a model's lineage, task, training, privacy statement, curves and reports."""
    chain = face.session.lineage(name)
    model = chain[0]
    face.say(" <- ".join(f"{step.name} ({step.kind})" for step in chain))
    about = [f"{model.size / 1e6:.1f} MB", f"sha256 {model.sha256[:12]}"]
    about += [figure(model.facts[key]) for key in ("architecture", "type") if model.facts.get(key)]
    about += ["shipped with Cloister"] if model.facts.get("demo") else []
    face.say(f"  file     {'  '.join(about)}")
    task = model.facts.get("task")
    if task:
        labels = ", ".join(task["labels"])
        face.say(f"  task     {task['kind']}" + (f": {labels}" if labels else ""))
    training = model.facts.get("training")
    if training:
        for line in training_lines(training):
            face.say(line)
    _say_privacy(face, chain)
    people = face.session.people(chain)
    if not any((step.facts.get("privacy") or {}).get("people") for step in chain):  # else it stands there
        face.wrap(people, "  people   ")
    if training:
        for line in terminal_curves(training.get("history", []), room(), _CURVE_LINES):
            face.say(line)
        if picture := training.get("curves"):
            face.say(f"  curves   {picture}")
    for report in face.session.reports(name):
        face.say(f"  report   {report['path']}  gate {gate_word(report)}")
    audits = face.session.privacy_audits(name)
    for found in audits:
        face.say(f"  audit    {found['path']}  privacy audit {found['verdict']}")
    face.result(
        {
            "name": model.name,
            "kind": model.kind,
            "people": people,
            "privacy_audits": audits,
            "lineage": [step.name for step in chain],
            "facts": model.facts,
            "reports": face.session.reports(name),
        }
    )
