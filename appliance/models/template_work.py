"""How much work a chat template does: what its steps cost, and what they would make, before they run.

Costs are in characters written, copied, compared or looped over. A value that is written out, compared or
hashed costs what all it holds would: `[a, a]`, forty times over, is small in memory and endless to walk.
"""

from __future__ import annotations

import operator
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    Sized,
    ValuesView,
)
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from itertools import pairwise
from time import thread_time
from typing import Any

from jinja2 import TemplateError
from jinja2.utils import Namespace

_LARGEST_TEXT = 4_000_000
_WORK = 50_000_000  # characters for one prompt
_SECONDS = 5.0  # of processor time
_NESTED = 40  # levels of lists in lists in a value; a tool's description has about ten
ITEM = 32  # what an item of a list or a turn of a loop counts, in characters
_CONTAINERS = (list, tuple, range, Mapping, KeysView, ValuesView, ItemsView, Namespace)
_PARAMETERS = {
    "indent": ("width",),
    "join": ("d",),
    "lstrip": ("chars",),
    "replace": ("old", "new"),
    "round": ("precision",),
    "rstrip": ("chars",),
    "strip": ("chars",),
    "tojson": ("ensure_ascii", "indent", "separators"),
    "trim": ("chars",),
}


class _Work:
    """What is left of a rendering's allowance."""

    def __init__(self) -> None:
        self.left, self.ends = _WORK, thread_time() + _SECONDS


_work: ContextVar[_Work] = ContextVar("work")


@contextmanager
def allowance() -> Iterator[None]:
    """The limits of one compilation or rendering; beyond them, jinja2.TemplateError."""
    before = _work.set(_Work())
    try:
        yield
    finally:
        _work.reset(before)


def spend(characters: int) -> None:
    """Take `characters` from the allowance.

    Raises:
        TemplateError: it is used up, or its time is.
    """
    work = _work.get()
    work.left -= characters
    if work.left < 0 or thread_time() > work.ends:
        raise TemplateError("it does too much work for a prompt")


def size(value: object) -> int:
    """About how many characters `value` has when it is written out; counted no further than needed.

    Raises:
        TemplateError: it is nested too deeply.
    """
    if isinstance(value, str):
        return len(value)
    if not isinstance(value, _CONTAINERS):
        return ITEM
    most, total, left = _work.get().left, 0, [(value, 0)]
    while left and total <= most:
        part, level = left.pop()
        total += ITEM + (len(part) if isinstance(part, str | range) else 0)
        if isinstance(part, range) or not isinstance(part, _CONTAINERS):
            continue
        if level >= _NESTED:
            raise TemplateError("its lists are nested too deeply")
        if isinstance(part, Namespace):
            part = object.__getattribute__(part, "_Namespace__attrs")
        if isinstance(part, Mapping):
            left += [(key, level + 1) for key in part]
            part = part.values()
        left += [(each, level + 1) for each in part]
    return total


def flat(value: object) -> int:
    """What `value` costs when its items are copied or passed over, and not what they hold."""
    if isinstance(value, str):
        return len(value)
    return ITEM * (1 + (len(value) if isinstance(value, _CONTAINERS) and isinstance(value, Sized) else 0))


def spend_each(items: Any, cost: int) -> Any:
    """`items`, for a loop of which each turn costs `cost`."""
    found = items if isinstance(items, list | tuple | dict | range) else list(items)
    spend(len(found) * cost)
    return found


def spend_copy(value: Any) -> Any:
    """`value`, of which a part is taken."""
    spend(flat(value))
    return value


def spend_key(value: Any) -> Any:
    """`value`, which is hashed, or written into a message."""
    if isinstance(value, _CONTAINERS):
        spend(size(value))
    return value


def spend_text(value: object) -> str:
    """`value` as a text."""
    spend(size(value))
    return str(value)


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gteq": operator.ge,
    "lt": operator.lt,
    "lteq": operator.le,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}


def _spend_comparison(name: str, left: object, right: object) -> None:
    cost = ITEM
    if name in ("in", "notin"):
        cost += size(left) if isinstance(left, _CONTAINERS) else 0
        cost += 0 if isinstance(right, Mapping | KeysView) else size(right)
    elif isinstance(left, str) and isinstance(right, str):
        cost += min(len(left), len(right))
    elif isinstance(left, _CONTAINERS) and isinstance(right, _CONTAINERS):
        cost += size(left) + size(right)
    spend(cost)


def compare(value: Any, names: Sequence[str], *others: Any) -> Any:
    """`value` held against `others` by the operators jinja names, as in `a < b == c`; counted first."""
    found: Any = True
    for name, (left, right) in zip(names, pairwise((value, *others)), strict=True):
        _spend_comparison(name, left, right)
        found = _OPERATORS[name](left, right)
        if not found:
            break
    return found


def check_growth(name: str, value: Any, positional: Sequence[Any], named: Mapping[str, Any]) -> None:
    """Refuse a filter or method of texts before it fills the memory, or computes for ever.

    `value` and the arguments have been paid for as deep as they are.

    Raises:
        TemplateError: it would.
    """
    given = {**dict(zip(_PARAMETERS.get(name, ()), positional, strict=False)), **named}
    made = 0
    if name == "replace":
        text = str(value)
        made = len(text) + text.count(str(given.get("old", ""))) * len(str(given.get("new", "")))
    elif name == "join":
        items = len(value) if isinstance(value, Sized) else 0
        made = size(value) + items * len(str(given.get("d", "")))
    elif name == "indent":
        width = given.get("width", 4)
        width = width if isinstance(width, int) else len(str(width))
        made = width * (1 + len(str(value).splitlines()))
    elif name == "round" and abs(int(given.get("precision", 0))) > 20:
        raise TemplateError("it rounds too far")
    elif name == "tojson":
        indent, separators = given.get("indent"), given.get("separators") or ()
        if (indent is not None and not 0 <= indent <= 8) or len("".join(separators)) > 16:
            raise TemplateError("it indents too far")
        spend(size(value) * (indent or 0) * _NESTED // ITEM)
    elif "chars" in given and len(str(given["chars"])) > 100:
        raise TemplateError(f"its {name} takes too many characters")
    if made > _LARGEST_TEXT:
        raise TemplateError(f"its {name} makes too long a text")


def counted_filter(name: str, work: Callable[..., Any], *, deep: bool, quick: bool) -> Callable[..., Any]:
    """The filter `work`, counted: for all its value holds when `deep`, for nothing when `quick`."""
    leading = int(hasattr(work, "jinja_pass_arg"))  # arguments of jinja's own that come before the value

    @wraps(work)
    def counted(*arguments: Any, **options: Any) -> Any:
        value, rest = arguments[leading], arguments[leading + 1 :]
        if isinstance(value, Iterator):
            value = list(value)
        if not quick:
            spend(size(value) if deep else flat(value))
            given = sum(map(size, (*rest, *options.values())))
            spend(given if isinstance(value, str) else given * flat(value) // ITEM)  # `attribute`, for each
            check_growth(name, value, rest, options)
        if name == "unique":  # numbers of equal hashes take n * n steps
            value = _timed(value)
        found = work(*arguments[:leading], value, *rest, **options)
        if isinstance(found, Iterator):
            found = list(found)
        if not quick:
            spend(flat(found))
        return found

    return counted


def _timed(items: Iterable[Any]) -> Iterator[Any]:
    """`items`; before each, the time is looked at."""
    for each in items:
        spend(1)
        yield each


def counted_test(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """The test `work`, counted where it compares or writes out; what divides takes numbers alone."""

    @wraps(work)
    def counted(*arguments: Any) -> Any:
        if name in ("divisibleby", "even", "odd"):  # `%`, which on a text is formatting
            if not all(isinstance(each, int | float) for each in arguments):
                raise TemplateError(f"it asks whether something else than a number is {name}")
            return work(*arguments)
        if name == "in":
            _spend_comparison("in", *arguments[:2])
        else:
            spend(sum(map(size, arguments)))
        return work(*arguments)

    return counted


def spend_call(called: Any, arguments: Sequence[Any]) -> None:
    """Pay for a call of a function or a method that is built in."""
    spend(ITEM + sum(map(size, arguments)))
    owner, name = getattr(called, "__self__", None), getattr(called, "__name__", "")
    if isinstance(owner, str):
        spend(0 if name in ("startswith", "endswith") else len(owner))
        if name == "join":
            check_growth(name, arguments[0] if arguments else "", (owner,), {})
        else:
            check_growth(name, owner, arguments, {})
    elif isinstance(owner, list | tuple) and name in ("index", "count"):
        spend(size(owner))


def check_sum(left: object, right: object) -> None:
    """Pay for `left + right` of texts or lists.

    Raises:
        TemplateError: the text would be too long.
    """
    spend(flat(left) + flat(right))
    if isinstance(left, str) and isinstance(right, str) and len(left) + len(right) > _LARGEST_TEXT:
        raise TemplateError("it makes too long a text")
