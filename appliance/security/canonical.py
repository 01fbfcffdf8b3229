"""Canonical JSON, for whatever is signed or hashed: one value has exactly one spelling.

Sorted keys, no spaces, ASCII, integers only (an epsilon is a decimal string), as RFC 8785 restricted to
the types that need no rules of their own for numbers.
"""

from __future__ import annotations

import json
from typing import Any

_DEEPEST = 32
_MOST_DIGITS = 20


def encode(value: Any) -> bytes:
    """The canonical bytes of `value`: dicts with text keys, lists, text, integers, booleans, None.

    Raises:
        ValueError: it holds something else, or is nested deeper than 32.
    """
    _check(value, 0)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def decode(content: bytes) -> Any:
    """The value that `content` spells canonically.

    Raises:
        ValueError: it is no JSON, or another spelling than `encode` gives (so keys given twice too).
    """
    try:
        value = json.loads(content.decode("ascii"), parse_int=_integer, parse_float=_no_number)
        again = encode(value)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if again != content:
        raise ValueError("not spelled canonically")
    return value


def _check(value: Any, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("nested too deep")
    if isinstance(value, dict):
        for key, held in value.items():
            if not isinstance(key, str):
                raise ValueError("a key is no text")
            _check(held, depth + 1)
    elif isinstance(value, list):
        for held in value:
            _check(held, depth + 1)
    elif not (value is None or isinstance(value, str | bool | int)):
        raise ValueError(f"{type(value).__name__} has no canonical spelling")


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError("a number is too long")
    return int(digits)


def _no_number(digits: str) -> Any:
    raise ValueError(f"{digits[:20]} is no integer")
