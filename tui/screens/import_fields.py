"""What the import forms ask: first where the records are and what is learnt, then what the columns hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from appliance.core.errors import ConfigWrong
from appliance.data.columns import TASKS
from appliance.data.peek import Peek
from tui.fields import Field
from tui.import_spec import import_spec, parts

OWN, DEMO = "our own", "demo, made up"
NONE, EACH, UNSAID = "(none)", "(each record is another person)", "(not said)"
LEARN = {
    "a label": "label",
    "an answer": "answer",
    "a conversation": "chat",
    "running text": "text",
    "the better answer": "preference",
}

FIRST = (
    Field(
        key="source",
        title="Records",
        help="our own: a file or a folder of this site. demo: made-up messages to a clinic, nobody's records,"
        " to try everything out.",
        kind="choice",
        choices=(OWN, DEMO),
        default=OWN,
    ),
    Field(
        key="path",
        title="File or folder",
        help="A .csv, .tsv, .jsonl or .json file in UTF-8, or a folder of such files with the same columns."
        " It is read, never changed.",
        kind="path",
        needed=True,
        when=("source", OWN),
    ),
    Field(
        key="learn",
        title="The model learns",
        help="a label: one of a few, such as a queue. an answer: free text to a question. running text: how"
        " notes read. the better answer: which of two people prefer.",
        kind="choice",
        choices=tuple(LEARN),
        default="a label",
        when=("source", OWN),
    ),
    Field(
        key="name",
        title="Name",
        help="What to call the data set; left empty, as the file is called. Known already: a new version.",
    ),
)

_ROLES = {
    "text": ("Text", "The column with the text that the model reads."),
    "label": ("Label", "The column with the label that the model should give, one of a few."),
    "prompt": ("Question", "The column with what is asked."),
    "answer": ("Answer", "The column with the answer that the model should give."),
    "chat": ("Conversation", "The column with a list of messages, each with a role and a content."),
    "chosen": ("Better answer", "The column with the answer that people prefer."),
    "rejected": ("Other answer", "The column with the answer that they do not."),
}


def column_fields(found: Peek, task: str) -> tuple[Field, ...]:
    """The second form: every column is a choice among those that are there, with a guess chosen."""
    columns = found.columns
    learnt = [
        Field(
            key=role,
            title=_ROLES[role][0],
            help=_ROLES[role][1],
            kind="choice",
            choices=columns,
            default=found.guesses.get(role, columns[0]),
        )
        for role in TASKS[task]
    ]
    unit = Field(
        key="unit",
        title="Whose record",
        help="Privacy protects all records of one person together: choose the column that tells people apart."
        " Private training needs an answer.",
        kind="choice",
        choices=(*columns, EACH, UNSAID),
        default=found.guesses.get("unit", UNSAID),
    )
    more = [
        Field(
            key="unit_name",
            title="Called",
            help="What such a person is called in reports: patient, if left empty.",
        ),
        Field(
            key="group",
            title="Keep together",
            help="A column whose values must not stand both in training and in test, such as a disease.",
            kind="choice",
            choices=(NONE, *columns),
            default=NONE,
        ),
        Field(
            key="date",
            title="Date",
            help="The column with a date, if there is one.",
            kind="choice",
            choices=(NONE, *columns),
            default=found.guesses.get("date", NONE),
        ),
        Field(
            key="facts",
            title="Groups in reports",
            help="Columns by which reports are sliced, to see whether some do worse: sex, age band. Commas"
            " between them.",
        ),
        Field(
            key="seed",
            title="Seed of the split",
            help="Records go to training, validation and test (80, 10, 10 %) by chance; the same seed, the"
            " same split.",
            kind="count",
            default="0",
        ),
    ]
    if task == "label":
        more.insert(
            1,
            Field(
                key="labels",
                title="Only these labels",
                help="The labels that count, commas between them; left empty, all that there are.",
            ),
        )
    if task in ("label", "answer", "preference"):
        usual = "Message: {text} Label?" if task == "label" else "{text}"
        more.append(
            Field(
                key="prompt_form",
                title="How it is asked",
                help=f"The words around the text when the model is asked; {{text}} stands for it. Left"
                f" empty: {usual}",
            )
        )
    return (*learnt, unit, *more)


def name_of(first: Mapping[str, Any]) -> str:
    """The name that was typed, else one like the file's."""
    if first["name"]:
        return str(first["name"])
    if first["source"] == DEMO:
        return "inbox"
    stem = Path(first["path"]).stem
    return "".join(sign if sign.isascii() and (sign.isalnum() or sign in "-_.") else "-" for sign in stem)


def demo_spec(first: Mapping[str, Any]) -> dict[str, Any]:
    """The import of the made-up records."""
    return import_spec(path=None, name=name_of(first), columns={})


def spec_from(first: Mapping[str, Any], second: Mapping[str, Any], there: Sequence[str]) -> dict[str, Any]:
    """The import that both forms ask for, of a file with the columns `there`.

    Raises:
        ConfigWrong: how it is asked has no place for the text, or groups are by a column that is not there.
    """
    task = LEARN[first["learn"]]
    form = second.get("prompt_form")
    if form and "{text}" not in form:
        raise ConfigWrong("How it is asked has no {text} in it.", "Write it like: Message: {text} Label?")
    by_column = second["unit"] not in (EACH, UNSAID)
    columns: dict[str, Any] = {role: second[role] for role in TASKS[task]}
    columns |= {key: second[key] for key in ("group", "date") if second[key] != NONE}
    columns["facts"] = parts(second["facts"] or "")
    if strange := [one for one in columns["facts"] if one not in there]:
        raise ConfigWrong(
            f"Groups in reports: there is no column {strange[0]}.",
            "The columns stand at the top of this form.",
        )
    if by_column:
        columns["unit"] = second["unit"]
    return import_spec(
        path=first["path"],
        name=name_of(first),
        columns=columns,
        unit_is_record=second["unit"] == EACH,
        unit_name=second["unit_name"] if second["unit"] != UNSAID else None,
        labels=second.get("labels"),
        prompt=form,
        seed=second["seed"] or 0,
    )
