"""Which column of the files holds what."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from appliance.core.errors import ConfigWrong, DataRejected

LONGEST_NAME, MOST_WORDS = 40, 4  # a column's name as it is shown; what is more may be a record
# Of each task, which columns it needs: the text, then what is learnt from it.
TASKS = {
    "label": ("text", "label"),
    "answer": ("prompt", "answer"),
    "chat": ("chat",),
    "text": ("text",),
    "preference": ("prompt", "chosen", "rejected"),
}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of columns; `task` is one of TASKS.

    `text` holds the text, the question, or the messages of a chat; `answer` the label, the answer or the
    chosen one; `rejected` the other one of a preference. What a task does not have is None.
    """

    task: str
    text: str
    answer: str | None = None
    rejected: str | None = None
    unit: str | None = None
    group: str | None = None
    date: str | None = None
    facts: tuple[str, ...] = ()

    def wanted(self) -> tuple[str, ...]:
        """Every column that must be there, each once."""
        named = (self.text, self.answer, self.rejected, self.unit, self.group, self.date, *self.facts)
        return tuple(dict.fromkeys(name for name in named if name))


def columns_from(value: Mapping[str, Any]) -> Columns:
    """Columns out of a job's spec: those of exactly one task (see TASKS), then what is optional.

    Raises:
        ConfigWrong: not the columns of one task, one column for two of them or for one and the unit, or a
        name that is unknown or not a text.
    """
    given = {key: name for key, name in value.items() if name not in (None, "", [], ())}
    learnt = {name for names in TASKS.values() for name in names}
    known = learnt | {"unit", "group", "date", "facts"}
    if unknown := sorted(set(given) - known):
        raise ConfigWrong(
            f"Unknown columns setting: {', '.join(unknown)}.", f"Known are {', '.join(sorted(known))}."
        )
    facts = given.pop("facts", ())
    if isinstance(facts, str) or not all(isinstance(name, str) for name in (*facts, *given.values())):
        raise ConfigWrong("A column's name must be a text.", "Write the names as they stand in the header.")
    task = next((task for task, names in TASKS.items() if set(names) == learnt & set(given)), None)
    if task is None:
        raise ConfigWrong(
            "It is not said, or said in two ways, which columns hold what is to be learnt.",
            "Give --text and --label (one of few labels), --prompt and --answer (free text), --chat"
            " (conversations), --text alone (running text), or --prompt, --chosen and --rejected.",
        )
    names = [given[name] for name in TASKS[task]]
    if len(set(names)) < len(names):
        raise ConfigWrong("One column cannot be both a text and its answer.", "Name different columns.")
    if given.get("unit") in names:
        raise ConfigWrong(
            f"The column {_short(given['unit'])} cannot be both what is learnt and whose record it is.",
            "Name the column that tells people apart as --unit; without one, --unit-is-record"
            " where each record is another person's.",
        )
    text, answer, rejected = [*names, None, None][:3]
    rest = {key: given[key] for key in ("unit", "group", "date") if key in given}
    return Columns(task=task, text=text, answer=answer, rejected=rejected, facts=tuple(facts), **rest)


def need_columns(columns: Columns, there: Iterable[str], where: str) -> None:
    """Check that every wanted column is among those `there`; `where` names the file.

    Raises:
        DataRejected: one is not; the message names those that are, and the closest, once one of the wanted
            shows that these are names at all: a file without a header begins with a record.
    """
    names = list(there)
    missing = [name for name in columns.wanted() if name not in names]
    if not missing:
        return
    folded = {name.casefold().strip(): name for name in names}
    if not any(
        difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.8) for name in columns.wanted()
    ):
        raise DataRejected(
            f"{where} has none of the columns {', '.join(columns.wanted())} but {len(names)} others.",
            "Check that the file has a header, and name the columns as it does.",
        )
    shown = ", ".join(_short(name) for name in names[:30]) or "none"
    close = difflib.get_close_matches(missing[0].casefold(), list(folded), n=1, cutoff=0.5)
    better = f"Did you mean {_short(folded[close[0]])}?" if close else "Name one of those."
    raise DataRejected(f"{where} has no column {', '.join(missing)}. Its columns are: {shown}.", better)


def _short(name: str) -> str:
    """A file without a header would show a record as column names: show no more than a name's worth."""
    return (
        name if len(name) <= LONGEST_NAME and len(name.split()) <= MOST_WORDS else f"{len(name)} characters"
    )
