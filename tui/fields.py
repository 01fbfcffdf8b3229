"""The fields of a form as data: what is asked, in plain words, and what may be answered. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.core.errors import ConfigWrong


@dataclass(frozen=True, kw_only=True)
class Field:
    """One question. `kind`: "text", "number" and "whole" (above 0), "amount" and "count" (from 0 on; a
    count is whole), "choice", "yes", "path", "secret".

    `help` says in plain words what the answer does; `default` is its text, "" for none. `when` is another
    field's key and text: it is asked only while that stands there.
    """

    key: str
    title: str
    help: str
    kind: str = "text"
    default: str = ""
    choices: tuple[str, ...] = ()
    needed: bool = False
    when: tuple[str, str] | None = None


def asked(fields: Sequence[Field], typed: Mapping[str, str]) -> list[Field]:
    """The fields that are asked while this is typed."""
    texts = {field.key: typed.get(field.key, field.default) for field in fields}
    return [field for field in fields if field.when is None or texts.get(field.when[0]) == field.when[1]]


def answers(fields: Sequence[Field], typed: Mapping[str, str]) -> dict[str, Any]:
    """What was typed as values, by key: text, float, int, bool or Path; None where nothing was typed
    and where nothing is asked.

    Raises:
        ConfigWrong: with everything that is missing or wrong, field by field.
    """
    found: dict[str, Any] = dict.fromkeys(field.key for field in fields)
    wrong = []
    for field in asked(fields, typed):
        text = typed.get(field.key, field.default).strip()
        if not text:
            if field.needed:
                wrong.append(f"{field.title} is missing.")
            continue
        try:
            found[field.key] = _value(field, text)
        except ValueError as problem:
            wrong.append(f"{field.title}: {problem}.")
    if wrong:
        raise ConfigWrong(" ".join(wrong), "Mend it in the form.")
    return found


def written(found: Mapping[str, Any]) -> dict[str, str]:
    """Answers as they would be typed, for a form that asks again."""
    told = {key: value for key, value in found.items() if value is not None}
    return {
        key: ("yes" if value else "no") if isinstance(value, bool) else f"{value}"
        for key, value in told.items()
    }


def by_title(fields: Sequence[Field], text: str) -> str:
    """`text` with the titles of these fields where it names an option of their command, such as --port."""
    titles = {f"--{field.key.replace('_', '-')}": f'"{field.title}"' for field in fields}
    return re.sub(r"--[a-z][a-z-]*", lambda found: titles.get(found[0], found[0]), text)


def _value(field: Field, text: str) -> Any:
    match field.kind:
        case "number" | "amount":
            try:
                number = float(text)
            except ValueError:
                number = math.nan
            if not (0 < number < math.inf or (field.kind == "amount" and number == 0)):
                raise ValueError(f"a number {'above 0' if field.kind == 'number' else 'from 0 on'} is needed")
            return number
        case "whole":
            if not (text.isascii() and text.isdigit()) or int(text) == 0 or len(text) > 12:
                raise ValueError("a whole number above 0 is needed")
            return int(text)
        case "count":
            if not (text.isascii() and text.isdigit()) or len(text) > 12:
                raise ValueError("a whole number from 0 on is needed")
            return int(text)
        case "choice":
            if text not in field.choices:
                raise ValueError(f"it is one of {', '.join(field.choices)}")
            return text
        case "yes":
            return text == "yes"
        case "path":
            return Path(text).expanduser()
    return text
