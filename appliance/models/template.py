"""What a model's chat template may use, and how much work it may do.

A template is a program that came with a file. Jinja's sandbox keeps it from reaching the process, not from
filling memory or never ending: `"a" * 10**10`, a text that doubles forty times. So a template is parsed,
held against the lists below, and its loops, sums and joins are rewritten so that each is counted.

The lists name what can do something: statements, functions, methods, filters, tests. Of the 70 templates of
published models that llama.cpp 0.3.36 is tested with, 66 use nothing else; three call a filter that jinja
does not have, one `format`. A variable that nobody passes is undefined, so any name may be asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import wraps
from itertools import chain
from time import thread_time
from types import GeneratorType
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

_LONGEST, _DEEPEST = 100_000, 60  # characters and levels of a template; the largest known: 16,714 and 29
_LARGEST_TEXT, _LARGEST_NUMBER = 4_000_000, 10**15
_WORK = 50_000_000  # characters written, copied or looped over for one prompt
_SECONDS = 5.0  # of processor time
_ITEM = 32  # what an item of a list or a turn of a loop counts, in characters


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_STATEMENTS = _words(
    """Template Output TemplateData Name NSRef Const Tuple List Dict Pair Keyword CondExpr Filter Test
    Call Getitem Getattr Slice Concat Compare Operand Add Sub Mul Div FloorDiv Mod Neg Pos Not And Or If For
    Break Continue Macro Assign AssignBlock FilterBlock With"""
)
_FUNCTIONS = ("namespace", "range", "raise_exception", "strftime_now")
_METHODS = _words(
    """append capitalize count endswith find get index isdigit items join keys lower lstrip pop
    removeprefix removesuffix replace rstrip split splitlines startswith strip title upper values"""
)
_QUICK = ("count", "d", "default", "first", "last", "length", "safe")  # those that look at no content
_DEEP = ("join", "string", "tojson")  # those that write out all content
_FILTERS = _words(
    """abs capitalize dictsort float indent int items list lower map max min reject rejectattr replace
    reverse round select selectattr sort title trim unique upper"""
)
_TESTS = _words(
    """boolean callable defined divisibleby eq equalto even false filter float ge gt in integer iterable
    le lower lt mapping ne none number odd sameas sequence string test true undefined upper"""
)


class _Work:
    """What is left of a rendering's allowance."""

    def __init__(self) -> None:
        self.left, self.ends = _WORK, thread_time() + _SECONDS

    def spend(self, characters: int) -> None:
        self.left -= characters
        if self.left < 0 or thread_time() > self.ends:
            raise TemplateError("it does too much work for a prompt")


_work: ContextVar[_Work] = ContextVar("work")


@contextmanager
def allowance() -> Iterator[None]:
    """The limits of one compilation or rendering; beyond them, jinja2.TemplateError."""
    before = _work.set(_Work())
    try:
        yield
    finally:
        _work.reset(before)


def compile_template(text: str) -> Template:
    """The template of `text`; render it under `allowance`.

    Raises:
        jinja2.TemplateError: it is too large, wrong, or uses something that is not listed here.
        ValueError, RecursionError, ...: whatever jinja raises for text that is no template.
    """
    if len(text) > _LONGEST:
        raise TemplateError(f"it has {len(text)} characters, more than {_LONGEST}")
    with allowance():
        tree = _sandbox.parse(text)
        _check(tree)
        for node in list(tree.find_all((nodes.For, nodes.Concat))):
            _count(node)
        tree.set_environment(_sandbox)
        return _sandbox.from_string(tree)


def _check(tree: nodes.Template) -> None:
    macros = {node.name for node in tree.find_all(nodes.Macro)}
    level: list[nodes.Node] = [tree]
    for _ in range(_DEEPEST):
        for node in level:
            _check_node(node, macros)
        level = list(chain.from_iterable(node.iter_child_nodes() for node in level))
        if not level:
            return
    raise TemplateError("it is nested too deeply")


def _check_node(node: nodes.Node, macros: set[str]) -> None:
    kind = type(node).__name__
    if kind not in _STATEMENTS or (isinstance(node, nodes.For) and node.recursive):
        raise TemplateError(f"it uses {kind}, which is not allowed")
    name, listed = "", True
    if isinstance(node, nodes.Filter):
        name, listed = node.name, node.name in _sandbox.filters
    elif isinstance(node, nodes.Test):
        name, listed = node.name, node.name in _TESTS
    elif isinstance(node, nodes.Getattr):
        name, listed = node.attr, not node.attr.startswith("_")
    elif isinstance(node, nodes.Call):
        called = node.node
        if isinstance(called, nodes.Getattr):
            name, listed = called.attr, called.attr in _METHODS
        else:
            name = called.name if isinstance(called, nodes.Name) else "a computed function"
            listed = name in _FUNCTIONS or name in macros
    if not listed:
        raise TemplateError(f"it uses {name[:40]}, which is not allowed")


def _count(node: nodes.Node) -> None:
    """Let a loop take its items through `_each`, and `a ~ b` become a sum, which is counted."""
    if isinstance(node, nodes.For):
        words = (word.data for word in node.find_all(nodes.TemplateData))
        texts = (text.value for text in node.find_all(nodes.Const) if isinstance(text.value, str))
        cost = nodes.Const(_ITEM + sum(map(len, chain(words, texts))))
        node.iter = nodes.Filter(node.iter, "_each", [cost], [], None, None, lineno=node.lineno)
    elif isinstance(node, nodes.Concat):
        parts = [nodes.Filter(part, "_text", [], [], None, None, lineno=node.lineno) for part in node.nodes]
        total: nodes.Expr = parts[0]
        for part in parts[1:]:
            total = nodes.Add(total, part, lineno=node.lineno)
        node.nodes = [total]


def _size(value: object) -> int:
    """About how many characters `value` has when it is written out; counted no further than needed."""
    if isinstance(value, str):
        return len(value)
    most, total, left = _work.get().left, 0, [value]
    while left and total <= most:
        part = left.pop()
        total += _ITEM + (len(part) if isinstance(part, str | range) else 0)
        if isinstance(part, Mapping):
            left += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            left += part
    return total


def _flat(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    return _ITEM * (1 + (len(value) if isinstance(value, list | tuple | dict | range) else 0))


def _each(items: Any, cost: int) -> Any:
    found = items if isinstance(items, list | tuple | dict | range) else list(items)
    _work.get().spend(len(found) * cost)
    return found


def _text(value: object) -> str:
    _work.get().spend(_size(value))
    return str(value)


def _output(value: object) -> object:
    _work.get().spend(_size(value))
    return value


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers writes it: without HTML escapes, which jinja's own would add."""
    if indent is not None and not 0 <= indent <= 8:
        raise TemplateError("it indents too far")
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _check_growth(name: str, text: object, arguments: tuple[Any, ...]) -> None:
    """Refuse a replacement, join or indentation before it fills the memory."""
    size = 0
    if name == "replace" and len(arguments) > 1 and isinstance(text, str):
        size = len(text) + text.count(str(arguments[0])) * len(str(arguments[1]))
    elif name == "join" and isinstance(text, str):
        size = _size(arguments[0]) * (1 + len(text)) if arguments else 0
    elif name == "join" and isinstance(text, list | tuple):
        size = _size(text) + len(text) * len(str(arguments[0])) if arguments else 0
    elif name == "indent" and arguments:
        width = arguments[0] if isinstance(arguments[0], int) else len(str(arguments[0]))
        size = width * (1 + str(text).count("\n"))
    if size > _LARGEST_TEXT:
        raise TemplateError(f"its {name} makes too long a text")


def _counted(name: str, work: Callable[..., Any], *, leading: int) -> Callable[..., Any]:
    """The filter `work`, counted. `leading` arguments of jinja's own come before the value."""

    @wraps(work)
    def counted(*arguments: Any, **options: Any) -> Any:
        value, rest = arguments[leading], (*arguments[leading + 1 :], *options.values())
        if isinstance(value, GeneratorType):
            value = list(value)
        if name not in _QUICK:
            _check_growth(name, value, rest)
            _work.get().spend(_size(value) if name in _DEEP else _flat(value))
        found = work(*arguments[:leading], value, *arguments[leading + 1 :], **options)
        if isinstance(found, Iterator):
            found = list(found)
        if name not in _QUICK:
            _work.get().spend(_flat(found))
        return found

    return counted


class _Generation(Extension):
    """`{% generation %}`, with which transformers marks the assistant's words; here it marks nothing."""

    tags = {"generation"}  # noqa: RUF012 (jinja's own type)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with sums, products and calls counted and formatting by % left out."""

    intercepted_binops = frozenset(("+", "*", "%"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator != "+" and not numbers:
            raise TemplateError(f"it uses {operator} on something else than numbers")
        if numbers and max(abs(left), abs(right)) > _LARGEST_NUMBER:
            raise TemplateError("it computes with too large a number")
        if not numbers:
            _work.get().spend(_flat(left) + _flat(right))
            if isinstance(left, str) and isinstance(right, str) and len(left) + len(right) > _LARGEST_TEXT:
                raise TemplateError("it makes too long a text")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            _check_growth(__obj.__name__, owner, args)
        _work.get().spend(_ITEM)
        found = super().call(__context, __obj, *args, **kwargs)
        _work.get().spend(_flat(found))
        return found


def _raise(message: str) -> None:
    raise TemplateError(str(message)[:200])


def _strftime_now(form: str) -> str:
    if len(form) > 100 or any(char.isdigit() for char in form):  # "%99999999d" is a width to the C library
        raise TemplateError("its form of a date is too long")
    return datetime.now(UTC).strftime(form)


def _make() -> _Sandbox:
    made = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[LoopControlExtension, _Generation],
        finalize=_output,
    )
    own = {**made.filters, "tojson": _tojson}
    made.filters = {
        name: _counted(name, own[name], leading=int(hasattr(own[name], "jinja_pass_arg")))
        for name in (*_QUICK, *_DEEP, *_FILTERS)
    }
    made.filters |= {"_each": _each, "_text": _text}
    made.tests = {name: made.tests[name] for name in _TESTS}
    made.globals = {name: made.globals[name] for name in ("namespace", "range")}
    made.globals |= {"raise_exception": _raise, "strftime_now": _strftime_now}
    return made


_sandbox = _make()
