"""JSON schemas that an answer is held to: small, without references to elsewhere, without explosions.

An engine turns a schema into a grammar; a count in it is a number of rules, so counts are bounded.
"""

from __future__ import annotations

import json
from typing import Any

from appliance.serve.refusals import Refused

_LONGEST, _DEEPEST, _MOST = 1 << 14, 16, 256
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_UNSAFE = ("pattern", "patternProperties", "$dynamicRef", "$recursiveRef", "$id", "$anchor")


def check_schema(value: Any, param: str) -> dict[str, Any]:
    """`value`, when it is a schema that may become a grammar.

    Raises:
        Refused: it is no object, larger than 16 KiB or 16 levels, refers to something outside itself,
            counts beyond 256, or holds a regular expression.
    """
    if not isinstance(value, dict):
        raise Refused(f"{param} must be a JSON schema.", param=param)
    if len(json.dumps(value)) > _LONGEST:
        raise Refused(f"{param} is longer than {_LONGEST} bytes.", param=param)
    _walk(value, param, 0)
    return value


def _walk(value: Any, param: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise Refused(f"{param} is nested deeper than {_DEEPEST} levels.", param=param)
    if isinstance(value, list):
        for item in value:
            _walk(item, param, depth + 1)
    if not isinstance(value, dict):
        return
    if any(name in value for name in _UNSAFE):
        raise Refused(f"{param} may not use {', '.join(_UNSAFE)}.", param=param)
    if "$ref" in value and not str(value["$ref"]).startswith("#/"):
        raise Refused(f"{param} may only refer to parts of itself.", param=param)
    for name in _COUNTS:
        count = value.get(name)
        if isinstance(count, int) and not isinstance(count, bool) and count > _MOST:
            raise Refused(f"{name} in {param} may be {_MOST} at most.", param=param)
    for item in value.values():
        _walk(item, param, depth + 1)
