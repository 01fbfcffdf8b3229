"""The fields of a form as data: what is asked, in plain words, and what may be answered. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.core.errors import ConfigWrong


@dataclass(frozen=True, kw_only=True)
class Field:
    """One question. `kind`: "text", "number" (above 0), "whole" (above 0), "choice", "yes", "path", "secret".

    `help` says in plain words what the answer does; `default` is its text, "" for none.
    """

    key: str
    title: str
    help: str
    kind: str = "text"
    default: str = ""
    choices: tuple[str, ...] = ()
    needed: bool = False


def answers(fields: Sequence[Field], typed: Mapping[str, str]) -> dict[str, Any]:
    """What was typed as values, by key: text, float, int, bool or Path; None where nothing was typed.

    Raises:
        ConfigWrong: with everything that is missing or wrong, field by field.
    """
    found: dict[str, Any] = {}
    wrong = []
    for field in fields:
        text = typed.get(field.key, field.default).strip()
        if not text:
            found[field.key] = None
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


def _value(field: Field, text: str) -> Any:
    match field.kind:
        case "number":
            try:
                number = float(text)
            except ValueError:
                number = 0.0
            if not 0 < number < math.inf:
                raise ValueError("a number above 0 is needed")
            return number
        case "whole":
            if not (text.isascii() and text.isdigit()) or int(text) == 0 or len(text) > 12:
                raise ValueError("a whole number above 0 is needed")
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
