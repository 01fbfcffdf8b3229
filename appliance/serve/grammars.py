"""JSON schemas that an engine may be given: a grammar is made of them, and may not grow without end."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from appliance.core.errors import ConfigWrong

MOST_REPEATS = 2000  # MAX_REPETITION_THRESHOLD of llama.cpp's src/llama-grammar.cpp
_COUNTS = {"minLength", "maxLength", "minItems", "maxItems"}
_REPEATS = re.compile(r"\{(\d{1,9})(?:,(\d{0,9}))?\}")


def check_schema(schema: Mapping[str, Any]) -> None:
    """That no part of a schema asks for more repetitions than a grammar may have.

    Raises:
        ConfigWrong: one does, or they nest too deep to be counted.
    """
    try:
        count = _repeats(schema)
    except (RecursionError, OverflowError, ValueError) as problem:
        raise schema_refused() from problem
    if count > MOST_REPEATS:
        raise schema_refused()


def schema_refused() -> ConfigWrong:
    """A JSON schema that no grammar can be made of; nothing of it is repeated."""
    return ConfigWrong(
        "Answers cannot be kept to this JSON schema.",
        f"Use plain types, enum, properties and items, and at most {MOST_REPEATS:,} repetitions.",
    )


def _repeats(schema: Any) -> int:
    """The largest number of repetitions that any part asks for; those in one pattern multiply."""
    if isinstance(schema, list):
        return max(map(_repeats, schema), default=0)
    if not isinstance(schema, Mapping):
        return 0
    own = [int(schema[name]) for name in _COUNTS & schema.keys() if isinstance(schema[name], int | float)]
    if isinstance(schema.get("pattern"), str):
        ranges = _REPEATS.findall(schema["pattern"])
        own.append(math.prod(max(int(count or 1) for count in pair) for pair in ranges))
    return max([*own, *map(_repeats, schema.values())], default=0)
