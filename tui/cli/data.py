"""cloister data: import, list, show, remove."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.core.errors import ConfigWrong
from tui.cli.face import Face, command
from tui.import_spec import import_spec
from tui.words import LEARNS, bytes_text

app = typer.Typer(help="Records in: import them, see what was found, remove them.", no_args_is_help=True)


@command(app, "import")
def import_(
    face: Face,
    path: Annotated[Path, typer.Argument(help="A .csv, .tsv, .jsonl or .json file, or a folder; or `demo`.")],
    name: Annotated[str, typer.Option(help="What to call the dataset.")],
    text: Annotated[
        str | None, typer.Option(help="Column with the text; without --label it is learnt as running text.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Column with the label, one of a few.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="The labels there are, separated by commas; records with others are left out."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="Column with the question (with --answer, or with --chosen and --rejected)."),
    ] = None,
    answer: Annotated[str | None, typer.Option(help="Column with the answer, free text.")] = None,
    chat: Annotated[
        str | None,
        typer.Option(
            help="Column with a whole conversation: a list of messages, each with role (system, user,"
            " assistant) and content; in CSV that list as JSON."
        ),
    ] = None,
    chosen: Annotated[
        str | None, typer.Option(help="Column with the better of two answers (with --prompt).")
    ] = None,
    rejected: Annotated[str | None, typer.Option(help="Column with the other one (with --chosen).")] = None,
    unit: Annotated[
        str | None,
        typer.Option(help="Column that says whose record it is: the patient, whom privacy protects."),
    ] = None,
    unit_name: Annotated[str, typer.Option(help="What to call that unit.")] = "patient",
    unit_is_record: Annotated[
        bool, typer.Option("--unit-is-record", help="Each record stands for a different person.")
    ] = False,
    group: Annotated[
        str | None, typer.Option(help="Column whose values must not stand in two splits (a disease).")
    ] = None,
    date: Annotated[str | None, typer.Option(help="Column with a date.")] = None,
    fact: Annotated[
        list[str] | None, typer.Option(help="Column to slice reports by (sex, age band). May be repeated.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--prompt-form",
            help="How the model is asked; must contain {text}. Not for --chat or running text.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split into train, validation and test.")] = 0,
) -> None:
    """Import records into a new dataset, or a new version of it.

    The columns that you name say what is learnt. Examples:

    A label: cloister data import inbox.csv --name inbox --text message --label queue --unit patient

    A free answer: cloister data import qa.jsonl --name qa --prompt question --answer answer --unit-is-record

    Conversations: cloister data import chats.jsonl --name chats --chat messages --unit patient

    Running text: cloister data import notes.csv --name notes --text note --unit patient

    The better answer: cloister data import two.csv --name two --prompt ask --chosen a --rejected b --unit id
    """
    if form is not None and "{text}" not in form:
        raise ConfigWrong("--prompt-form has no {text} in it.", "Write it like: 'Message: {text} Label?'")
    demo = str(path) == "demo" and not path.exists()
    columns = {"text": text, "label": label, "prompt": prompt, "answer": answer, "chat": chat}
    columns |= {"chosen": chosen, "rejected": rejected, "unit": unit, "group": group, "date": date}
    spec = import_spec(
        path=None if demo else path,
        name=name,
        columns={**columns, "facts": fact},
        unit_is_record=unit_is_record,
        unit_name=None if unit is None else unit_name,
        labels=labels,
        prompt=form,
        seed=seed,
    )
    job = face.follow(face.session.start_import(spec))
    found = job.end["result"]
    show_dataset(face, f"{found['name']}@{found['version']}")
    if found.get("reused"):
        face.say("These very records were imported before; nothing was added.")
    face.result(found | {"job": job.id})


@command(app, "list")
def list_(face: Face) -> None:
    """List datasets and their versions."""
    found = face.session.datasets()
    face.table(
        ("dataset", "records", "units", "task", "labels", "imported"),
        [
            (
                dataset.title,
                f"{sum(dataset.counts.values()):,}",
                f"{sum(dataset.units.values()):,} {dataset.unit}s" if dataset.unit else "not said",
                dataset.task,
                len(dataset.labels) or "-",
                dataset.created[:16],
            )
            for dataset in found
        ],
        "No datasets yet. Import one: cloister data import --help",
        spare=("imported", "labels"),
    )
    face.result(
        {
            "datasets": [
                {"name": d.name, "version": d.version, "counts": d.counts, "unit": d.unit} for d in found
            ]
        }
    )


@command(app)
def show(face: Face, name: Annotated[str, typer.Argument(help="Dataset, or dataset@version.")]) -> None:
    """Show what was found in a dataset and what was dropped."""
    face.result(show_dataset(face, name))


def show_dataset(face: Face, name: str) -> dict[str, Any]:
    """Print one dataset's figures and return them."""
    dataset = face.session.dataset(name)
    made_up = "  (synthetic: made-up people and messages)" if dataset.synthetic else ""
    face.wrap(f"{dataset.title}{made_up}", rest="  ")
    face.say(f"  learns {LEARNS[dataset.task]}")
    for split in ("train", "val", "test"):
        units = f"  {dataset.units[split]:>7,} {dataset.unit}s" if dataset.unit else ""
        face.say(f"  {split:<6}{dataset.counts[split]:>8,} records{units}")
    if dataset.unit is None:
        face.say("  No unit of privacy was said: private training will refuse these records.")
    facts = dataset.facts
    labels: dict[str, int] = facts.get("labels", {})
    if labels:
        most = max(labels.values())
        for label, count in sorted(labels.items(), key=lambda pair: -pair[1])[:20]:
            face.say(f"  {label:<24.24}{count:>7,}  {'#' * round(24 * count / most)}")
        if len(labels) > 20:
            face.say(f"  ... and {len(labels) - 20} more labels")
    for reason, count in facts.get("dropped", {}).items():
        if count:
            face.say(f"  dropped {count:,}: {reason}")
    return {
        "name": dataset.name,
        "version": dataset.version,
        "task": dataset.task,
        "unit": dataset.unit,
        **facts,
    }


@command(app)
def remove(
    face: Face,
    name: Annotated[str, typer.Argument(help="Dataset (all its versions), or dataset@version.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
) -> None:
    """Remove records for good: their files, and what models answered to each. Two people agree to it.

    Refused while a job uses them. What stays: the figures of the dataset and of its reports, what was spent
    of its privacy budget, and what models have learnt from it; remove those too (cloister model remove).
    """
    from tui import session_data

    going = session_data.plan_removal(face.session, name)
    for one in going.datasets:
        face.say(f"{one.title}: {sum(one.counts.values()):,} records, sha256 {one.sha256[:12]}")
    face.say(f"{going.files} files, {bytes_text(going.size)}, will be gone for good.")
    face.wrap("Figures, reports and what was spent of the privacy budget stay known.")
    if going.models:
        face.wrap(f"Trained on it, and still holding what they learnt: {', '.join(going.models)}.", rest="  ")
    if going.bare:
        face.wrap(
            f"Without privacy, so records may be drawn out of them: {', '.join(going.bare)}. Remove them,"
            f" too: cloister model remove {going.bare[-1]}",
            rest="  ",
        )
    if going.unfinished:
        jobs = ", ".join(going.unfinished)
        face.wrap(f"Ended early and cannot be resumed without it; a checkpoint stays: job {jobs}.", rest="  ")
    if not yes and not _agreed(face, name):
        return
    session_data.remove(face.session, name)
    face.say(f"{name} is removed.")
    face.result(
        {
            "name": name,
            "removed": list(going.titles),
            "files": going.files,
            "size": going.size,
            "models": list(going.models),
            "without_privacy": list(going.bare),
            "unfinished": list(going.unfinished),
        }
    )


def _agreed(face: Face, name: str) -> bool:
    if face.as_json or not sys.stdin.isatty():
        raise ConfigWrong(
            f"Nothing was removed: the records of {name} would be gone for good.",
            "Add --yes if that is meant.",
        )
    if typer.prompt("Type its name to remove it for good", default="", show_default=False) == name:
        return True
    face.say("Nothing was removed.")
    return False
