"""JSON schemas that an answer is held to: small, without references to elsewhere, without explosions.

An engine turns a schema into a grammar; a count in it is a number of rules, so counts are bounded.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from appliance.serve.refusals import Refused

_LONGEST, _DEEPEST, _MOST, _NODES, _PROPERTIES = 1 << 14, 16, 256, 1000, 64
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_UNSAFE = ("pattern", "patternProperties", "$dynamicRef", "$recursiveRef", "$id", "$anchor")


def check_schema(value: Any, param: str) -> dict[str, Any]:
    """`value`, when it is a schema that may become a grammar.

    Raises:
        Refused: it is no object, larger than 16 KiB or 16 levels, refers to itself or to something
            outside, has more than 1,000 parts with every reference written out or 64 properties in one
            of them, counts beyond 256, or holds a regular expression.
    """
    if not isinstance(value, dict):
        raise Refused(f"{param} must be a JSON schema.", param=param)
    try:
        size = len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except (ValueError, RecursionError):  # also half a surrogate pair
        raise Refused(f"{param} is no valid JSON.", param=param) from None
    if size > _LONGEST:
        raise Refused(f"{param} is longer than {_LONGEST} bytes.", param=param)
    _Walk(value, param).part(value, 0, ())
    return value


class _Walk:
    """One look at a schema with its references followed; `left` parts may still come."""

    def __init__(self, root: dict[str, Any], param: str) -> None:
        self._root, self._param, self._left = root, param, _NODES

    def part(self, value: Any, depth: int, way: tuple[str, ...]) -> None:
        """Check `value`, reached through the references in `way`."""
        if depth > _DEEPEST:
            self._refuse(f"is nested deeper than {_DEEPEST} levels")
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 63:
            self._refuse("has a number that is too large")
        if isinstance(value, list):
            for item in value:
                self.part(item, depth + 1, way)
        if not isinstance(value, dict):
            return
        self._left -= 1
        if self._left < 0:
            self._refuse(f"has more than {_NODES} parts")
        self._check(value)
        if "$ref" in value:
            self.part(self._target(value["$ref"], way), depth + 1, (*way, value["$ref"]))
        for name, item in value.items():
            if depth or name not in ("$defs", "definitions"):  # those count where they are used
                self.part(item, depth + 1, way)

    def _check(self, value: dict[str, Any]) -> None:
        if any(name in value for name in _UNSAFE):
            self._refuse(f"may not use {', '.join(_UNSAFE)}")
        for name in _COUNTS:
            count = value.get(name)
            if isinstance(count, int) and not isinstance(count, bool) and count > _MOST:
                self._refuse(f"may have {name} up to {_MOST}")
        if isinstance(value.get("properties"), dict) and len(value["properties"]) > _PROPERTIES:
            self._refuse(f"may have {_PROPERTIES} properties in an object")
        needed = value.get("required", [])
        if isinstance(needed, list) and not all(isinstance(name, str) for name in needed):
            self._refuse("has a required that is no list of names")

    def _target(self, place: Any, way: tuple[str, ...]) -> Any:
        """What a reference stands for; one that leads back to itself would be a grammar without end."""
        if not isinstance(place, str) or not place.startswith("#/"):
            self._refuse("may only refer to parts of itself")
        if place in way:
            self._refuse("may not refer to itself in a circle")
        found: Any = self._root
        for step in place[2:].split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                self._refuse("refers to a part that it does not have")
        return found

    def _refuse(self, what: str) -> NoReturn:
        raise Refused(f"{self._param} {what}.", param=self._param)
