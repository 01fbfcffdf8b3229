"""The import job: read, clean, split, publish.

spec: {"name", and "path" with "columns" {"text", "label"}, {"prompt", "answer"}, {"chat"}, {"text"} or
{"prompt", "chosen", "rejected"}, and in it optional "unit", "group", "date", "facts": [..]; or "demo":
true with optional "patients"}; optional "unit_is_record", "unit_name", "seed", "labels", "prompt" (not
for chat and text), "max_characters", "min_examples".
Events hold counts only, never a text. Records that another dataset holds already are refused when they
are the same, else counted in the result's `overlap`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from appliance.core.errors import ConfigWrong, DataRejected
from appliance.core.files import need_room, work_folder
from appliance.core.job import Job
from appliance.data import inbox, store
from appliance.data.clean import Cleaned, clean, label_counts, only_labels, rare_labels, unused_labels
from appliance.data.columns import Columns, columns_from
from appliance.data.figures import figures
from appliance.data.overlap import shared_records
from appliance.data.readers import read_records, record_files
from appliance.data.records import Record
from appliance.data.split import own_unit, split


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked spec. `unit` is the noun of the privacy unit; None: none is declared."""

    name: str
    path: Path | None
    columns: Columns
    unit: str | None
    unit_is_record: bool
    prompt: str
    labels: tuple[str, ...]
    seed: int
    patients: int
    max_characters: int
    min_examples: int

    @property
    def demo(self) -> bool:
        """The records are generated, not read."""
        return self.path is None


def run(spec: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """Import one dataset; gives its name, version, whether it was there already, and its figures."""
    plan = plan_from(spec)
    draft = work_folder(job.home.datasets / f".{job.id}.draft")
    if old := store.made_by(job.home, plan.name, job.id):
        shutil.rmtree(draft, ignore_errors=True)
        return _result(old, reused=True)
    try:
        dataset, reused = _make(plan, job, draft)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    job.emit("dataset", name=dataset.name, version=dataset.version, reused=reused, facts=dataset.facts)
    return _result(dataset, reused=reused)


def plan_from(spec: Mapping[str, Any]) -> Plan:
    """The plan that `spec` asks for.

    Raises:
        ConfigWrong: a setting is missing, unknown or contradicts another.
    """
    given = {key: value for key, value in spec.items() if value is not None}
    if unknown := sorted(set(given) - _SETTINGS):
        raise ConfigWrong(
            f"Unknown import setting: {', '.join(unknown)}.", f"Known are {', '.join(sorted(_SETTINGS))}."
        )
    demo = bool(given.get("demo", False))
    if demo == ("path" in given):
        raise ConfigWrong("An import reads a path or makes the demo records.", "Give one of the two.")
    columns = inbox.COLUMNS if demo else columns_from(given.get("columns", {}))
    by_record = bool(given.get("unit_is_record", False))
    if by_record and columns.unit is not None:
        raise ConfigWrong(
            f"The privacy unit cannot be both the column {columns.unit} and the single record.",
            "Leave one of the two out; the column protects everything of one person.",
        )
    noun = "record" if by_record else "patient" if columns.unit else None
    if "unit_name" in given and noun is None:
        raise ConfigWrong("A unit is named but no column holds it.", "Add --unit COLUMN.")
    return Plan(
        name=store.check_name(given.get("name", "inbox" if demo else "")),
        path=None if demo else Path(given["path"]).expanduser(),
        columns=columns,
        unit=given.get("unit_name", noun),
        unit_is_record=by_record,
        prompt=_prompt(given, columns.task),
        labels=_labels(given, columns, demo=demo),
        seed=_whole(given, "seed", 0, least=0),
        patients=_whole(given, "patients", 2000, least=30),
        max_characters=_whole(given, "max_characters", _LONGEST[columns.task], least=1),
        min_examples=_whole(given, "min_examples", 10, least=0),
    )


def _make(plan: Plan, job: Job, draft: Path) -> tuple[store.Dataset, bool]:
    cleaned = _clean(plan, job)
    if plan.labels:
        if not plan.demo and (unused := unused_labels(cleaned, plan.labels)):
            job.log(f"No record has the label {', '.join(unused)}.")
        cleaned = only_labels(cleaned, plan.labels)
    facts: dict[str, Any] = {
        "source": "generated, synthetic" if plan.demo else plan.path.name if plan.path else "",
        "seed": plan.seed,
        "dropped": cleaned.dropped,
        # Made-up records have nobody's privacy to count; `cloister demo` keeps its own copy of them.
        "overlap": {} if plan.demo else _overlap(plan, cleaned, job),
    }
    labels: tuple[str, ...] = ()
    if plan.columns.task == "label":
        counts = label_counts(cleaned.kept)
        labels = tuple(sorted(plan.labels or counts))
        facts |= {
            "labels": counts,
            "labels_declared": bool(plan.labels),
            "rare_labels": rare_labels(counts, plan.min_examples),
        }
    parts = split(cleaned.kept, plan.seed)
    if torn := len(cleaned.kept) - sum(len(part) for part in parts.values()):
        facts["dropped"] = {**cleaned.dropped, "group in another split": torn}
    facts |= figures(parts)
    if labels:
        facts["labels_not_in_train"] = sorted(set(labels) - {record.answer for record in parts["train"]})
    sizes = {name: len(part) for name, part in parts.items()}
    job.progress("split", len(cleaned.kept), len(cleaned.kept), **sizes)
    need_room(job.home.datasets, sum(_size(record) for record in cleaned.kept) + 1_000_000)
    store.write_splits(draft, parts)
    dataset, reused = store.publish(
        job.home,
        draft,
        name=plan.name,
        task=plan.columns.task,
        labels=labels,
        unit=plan.unit,
        counts=sizes,
        units={name: facts["splits"][name]["units"] for name in parts},
        prompt=plan.prompt,
        synthetic=plan.demo,
        facts=facts,
        job=job.id,
        who=job.who,
    )
    job.progress("publish", 1, 1, version=dataset.version, reused=reused)
    return dataset, reused


def _overlap(plan: Plan, cleaned: Cleaned, job: Job) -> dict[str, int]:
    found = shared_records(job.home, plan.name, cleaned.kept, say=job.log)
    count = len(cleaned.kept)
    for title, shared in found.items():
        job.log(
            f"{shared} of {count} records ({shared / count:.0%}) are in {title} too. The privacy budgets are"
            " counted apart: whoever is in both can lose as much as both together."
        )
    return found


def _clean(plan: Plan, job: Job) -> Cleaned:
    read = Counter[str]()
    records = _counted(_records(plan, job, read), read)
    cleaned = clean(
        records,
        task=plan.columns.task,
        has_unit=plan.columns.unit is not None,
        max_characters=plan.max_characters,
    )
    count, total = read["records"], read["size"] or read["records"]
    job.progress("read", total, total, records=count, files=read["files"], files_left_alone=read["others"])
    job.progress("clean", count, count, kept=len(cleaned.kept), dropped=cleaned.dropped)
    if not cleaned.kept:
        reasons = ", ".join(f"{number} {why}" for why, number in cleaned.dropped.items() if number)
        raise DataRejected(
            f"None of the {count} records can be used: {reasons}.",
            "A chat is a list of messages by user and assistant in turn, after a system message if there is"
            " one; the roles have these very names."
            if plan.columns.task == "chat"
            else "Check which columns are named.",
        )
    if plan.unit_is_record:
        return replace(cleaned, kept=[replace(record, unit=own_unit(record.id)) for record in cleaned.kept])
    return cleaned


def _records(plan: Plan, job: Job, read: Counter[str]) -> Iterator[Record]:
    if plan.path is None:
        return inbox.generate(plan.seed, plan.patients)
    files, read["others"] = record_files(plan.path)
    read["files"] = len(files)
    read["size"] = size = sum(file.stat().st_size for file in files)

    def seen(done: int) -> None:
        job.progress("read", done, size, records=read["records"])

    return read_records(plan.path, plan.columns, seen)


def _counted(records: Iterable[Record], read: Counter[str]) -> Iterator[Record]:
    for record in records:
        read["records"] += 1
        yield record


def _size(record: Record) -> int:
    """About the bytes of its line, with room for marks, facts and escapes."""
    return 500 + 2 * sum(len(text.encode()) for text in (record.text, record.answer, record.rejected))


def _result(dataset: store.Dataset, *, reused: bool) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "version": dataset.version,
        "reused": reused,
        "task": dataset.task,
        "labels": list(dataset.labels),
        "unit": dataset.unit,
        "counts": dataset.counts,
        "units": dataset.units,
        "sha256": dataset.sha256,
        "synthetic": dataset.synthetic,
        "overlap": dataset.facts.get("overlap", {}),
        "facts": dataset.facts,
    }


def _prompt(given: Mapping[str, Any], task: str) -> str:
    usual = store.PROMPTS[task]
    prompt = given.get("prompt", usual)
    if not usual and prompt != usual:
        raise ConfigWrong(
            "Chats and running texts are learnt as they stand; they have no prompt form.",
            "Leave --prompt-form out.",
        )
    if usual and (not isinstance(prompt, str) or prompt.count("{text}") != 1):
        raise ConfigWrong("The prompt must hold {text} once.", "Write where the record's text goes.")
    return str(prompt)


def _labels(given: Mapping[str, Any], columns: Columns, *, demo: bool) -> tuple[str, ...]:
    """The labels that are declared; of made-up records they are known."""
    if demo:
        return inbox.LABELS
    labels = given.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(one, str) and one.strip() for one in labels):
        raise ConfigWrong("The labels must be a list of names.", "Write them as: --labels billing,refill.")
    if labels and (columns.task != "label" or len(set(labels)) < 2):
        raise ConfigWrong("Labels need a label column, and at least two names.", "Leave --labels out.")
    return tuple(dict.fromkeys(one.strip() for one in labels))


def _whole(given: Mapping[str, Any], key: str, default: int, *, least: int) -> int:
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigWrong(f"{key} must be a whole number of at least {least}.", f"The default is {default}.")
    return value


# Characters of one text at most; what a base cannot read of it is cut when it is learnt.
_LONGEST = {"label": 8000, "answer": 8000, "preference": 8000, "chat": 32_000, "text": 100_000}
_SETTINGS = {
    "path",
    "demo",
    "name",
    "columns",
    "unit_is_record",
    "unit_name",
    "seed",
    "labels",
    "prompt",
    "patients",
    "max_characters",
    "min_examples",
}
