"""The text of the data screens. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.core.events import Event
from appliance.data.store import Dataset
from appliance.models.registry import Model
from appliance.ops.data_removal import DataRemoval
from tui.screens.story import Line
from tui.widgets.gauge import gauge
from tui.words import LEARNS, bytes_text

_MOST_LABELS = 12


def cells(data: Dataset) -> tuple[str, ...]:
    """One row of the list."""
    counts = (f"{data.counts.get(split, 0):,}" for split in ("train", "val", "test"))
    return (data.title, data.task, data.unit or "none", *counts, data.created[:10])


def about(data: Dataset) -> str:
    """Kind, units, labels."""
    lines = ["made-up (synthetic) records" if data.synthetic else "records of this site"]
    if data.unit:
        here = f"{sum(data.units.values()):,} {data.unit}s"
        lines[0] += f" of {here}, {data.units.get('train', 0):,} of them to train on"
    if data.labels:
        lines.append("labels: " + ", ".join(data.labels))
    return "\n".join(lines)


def steps_text(data: Dataset, events: Sequence[Event]) -> str:
    """What its import did, step by step, and what it is now."""
    told = {event["stage"]: event for event in events if event["event"] == "progress"}
    read, kept = told.get("read", {}), sum(data.counts.values())
    dropped = sum(data.facts.get("dropped", {}).values())
    files = read.get("files", 0)
    source = str(data.facts.get("source", ""))
    lines = [
        f"[x] read    {kept + dropped:,} records" + (f", {files} files" if files > 1 else ""),
        f"[x] clean   {dropped:,} left out",
        "[x] split   by " + (data.unit or "record"),
        "    " + "  ".join(f"{name} {count:,}" for name, count in data.counts.items()),
        f"[x] keep    v{data.version}, sha256 {data.sha256[:8]}",
        "",
        f"learns  {LEARNS[data.task]}",
        f"from    {source}",
    ]
    if data.unit:
        lines.append(f"unit    {data.unit}, {sum(data.units.values()):,} of them")
    else:
        lines.append("unit    not said: no private training")
    return "\n".join(lines)


def found_text(data: Dataset, width: int) -> str:
    """What was found: what was left out and why, how long texts are, labels, records shared with others."""
    facts = data.facts
    lines = [f"left out {count:,}: {why}" for why, count in facts.get("dropped", {}).items() if count]
    if words := facts.get("words"):
        lines.append(f"words: middle {words['p50']:,}, 99 % {words['p99']:,}, most {words['p100']:,}")
    spread = facts.get("records_per_unit")
    if data.unit and spread:
        lines.append(f"of each {data.unit}: middle {spread['median']:g}, most {spread['max']:g}")
    lines += [
        f"{count:,} are in {title} too: budgets add up" for title, count in facts.get("overlap", {}).items()
    ]
    if rare := facts.get("rare_labels"):
        lines.append("! rare labels: " + ", ".join(rare))
    lines += _labels(facts.get("labels") or {}, width)
    return "\n".join(line[:width] for line in lines)


def _labels(labels: dict[str, int], width: int) -> list[str]:
    """Label, count and bar, most frequent first."""
    most = max(labels.values(), default=1)
    ordered = sorted(labels.items(), key=lambda pair: -pair[1])
    room = min(max(map(len, labels), default=0), max(8, width - 22))
    lines = [
        f"{name[:room]:<{room}} {count:>7,} {gauge(count / most, max(4, min(12, width - room - 10)))}"
        for name, count in ordered[:_MOST_LABELS]
    ]
    return [
        *lines,
        *([f"and {len(labels) - _MOST_LABELS} more labels"] if len(labels) > _MOST_LABELS else []),
    ]


def used_text(data: Dataset, models: Sequence[Model], others: Sequence[Dataset]) -> str:
    """Which models learnt from it, and its other versions."""
    lines = []
    for model in models:
        privacy = model.facts.get("privacy")
        how = f"eps {privacy['epsilon']:.2f}" if privacy else "WITHOUT privacy"
        lines.append(f"{model.name}  {how}  job {model.job}")
    lines = lines or ["No model has learnt from it yet."]
    if others:
        lines.append("other versions: " + ", ".join(f"v{other.version}" for other in others))
    return "\n".join(lines)


def log_text(lines: Sequence[Line], height: int) -> str:
    """The newest lines of the import's log."""
    shown = lines[-max(1, height) :]
    return "\n".join(f"{line.at} {line.text}" for line in shown) or "Its import left no log."


def removal_text(going: DataRemoval) -> str:
    """What is lost, what stays, before a removal."""
    lines = [
        *(f"{one.title}: {sum(one.counts.values()):,} records" for one in going.datasets),
        "",
        f"Lost for good: {going.files} files, {bytes_text(going.size)}, and what models answered to each"
        " record.",
        "Stays: the figures, the reports, and what was spent of the privacy budget.",
    ]
    if going.models:
        lines.append(f"Trained on it, and still holding what they learnt: {', '.join(going.models)}.")
    if going.bare:
        lines.append(
            f"Without privacy, so records may be drawn out of them: {', '.join(going.bare)}. Remove them too."
        )
    if going.unfinished:
        lines.append(f"Ended early and cannot be resumed without it: job {', '.join(going.unfinished)}.")
    return "\n".join(lines)


def removed_text(going: DataRemoval) -> str:
    """What was removed, in one line."""
    return f"{', '.join(going.titles)} removed: {going.files} files are gone."


def versions_of(data: Dataset, datasets: Sequence[Dataset]) -> list[Dataset]:
    """The other versions of the same name."""
    return [one for one in datasets if one.name == data.name and one.version != data.version]


def learnt_from(data: Dataset, models: Sequence[Model]) -> list[Model]:
    """The models that were trained on it."""
    return [model for model in models if model.trained and model.dataset == data.title]
