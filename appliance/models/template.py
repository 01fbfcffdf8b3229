"""What a model's chat template may use, and how much work it may do.

A template is a program that came with a file. Jinja's sandbox keeps it from reaching the process, not from
filling memory or never ending: `"a" * 10**10`, a text that doubles forty times. So a template is parsed,
held against the lists below, and its loops, sums and comparisons are rewritten so that each is counted.

The lists name what can do something: statements, functions, methods, filters, tests. Of the 70 templates of
published models that llama.cpp 0.3.36 is tested with, 62 render a plain chat; three call a filter that jinja
does not have, one `format`. A variable that nobody passes is undefined, so any name may be asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from jinja2 import Template, TemplateError, nodes, pass_context
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from appliance.core.phi import Phi
from appliance.models.template_work import (
    ITEM,
    allowance,
    check_sum,
    compare,
    counted_filter,
    counted_test,
    flat,
    size,
    spend,
    spend_call,
    spend_copy,
    spend_each,
    spend_key,
    spend_text,
)

_LONGEST, _DEEPEST = 100_000, 60  # characters and levels of a template; the largest known: 16,714 and 29
_LARGEST_NUMBER = 10**15


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
_QUICK = ("count", "d", "default", "first", "last", "length")  # those that look at no content
_DEEP = _words(  # those that write out, compare or hash all content
    """capitalize dictsort indent join lower max min replace safe sort string title tojson trim unique
    upper"""
)
_FILTERS = _words("abs float int items list map reject rejectattr reverse round select selectattr")
_TESTS = _words(
    """boolean callable defined divisibleby eq equalto even false filter float ge gt in integer iterable
    le lower lt mapping ne none number odd sameas sequence string test true undefined upper"""
)
_COSTLY_TESTS = _words("divisibleby eq equalto even filter ge gt in le lower lt ne odd test upper")
_COUNTED = (nodes.For, nodes.Concat, nodes.Compare, nodes.Getitem, nodes.Pair)


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
        for node in list(tree.find_all(_COUNTED)):
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
    """Let loops, slices, keys and comparisons be paid for, and `a ~ b` become a sum, which is."""
    if isinstance(node, nodes.For):
        words = (word.data for word in node.find_all(nodes.TemplateData))
        texts = (text.value for text in node.find_all(nodes.Const) if isinstance(text.value, str))
        cost = nodes.Const(ITEM + sum(map(len, chain(words, texts))))
        node.iter = _through("_each", node.iter, cost)
    elif isinstance(node, nodes.Concat):
        parts = [_through("_text", part) for part in node.nodes]
        total: nodes.Expr = parts[0]
        for part in parts[1:]:
            total = nodes.Add(total, part, lineno=node.lineno)
        node.nodes = [total]
    elif isinstance(node, nodes.Compare):
        names = nodes.Const(tuple(each.op for each in node.ops))
        node.expr = _through("_compare", node.expr, names, *(each.expr for each in node.ops))
        node.ops = []
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        node.node = _through("_copy", node.node)
    elif isinstance(node, nodes.Getitem) and not isinstance(node.arg, nodes.Const):
        node.arg = _through("_key", node.arg)
    elif isinstance(node, nodes.Pair) and not isinstance(node.key, nodes.Const):
        node.key = _through("_key", node.key)


def _through(name: str, value: nodes.Node, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, [*arguments], [], None, None, lineno=value.lineno)


@pass_context  # with which jinja leaves constants to the rendering, too
def _output(_: Context, value: object) -> object:
    spend(size(value))
    return value


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers writes it: without HTML escapes, which jinja's own would add."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


class _Generation(Extension):
    """`{% generation %}`, with which transformers marks the assistant's words; here it marks nothing."""

    tags = {"generation"}  # noqa: RUF012 (jinja's own type)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with sums and calls counted and formatting by % left out."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator != "+" and not numbers:
            raise TemplateError(f"it uses {operator} on something else than numbers")
        if numbers and max(abs(left), abs(right)) > _LARGEST_NUMBER:
            raise TemplateError("it computes with too large a number")
        if not numbers:
            check_sum(left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        if isinstance(__obj, Macro):
            spend(ITEM)  # what it does with its arguments is counted where it does it
        else:
            args = tuple(list(each) if isinstance(each, Iterator) else each for each in args)
            spend_call(__obj, (*args, *(() if __obj is Namespace else kwargs.values())))
        found = super().call(__context, __obj, *args, **kwargs)
        spend(flat(found))
        return found


class Refusal(TemplateError):
    """What the template itself says against the messages; it may quote them."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = Phi(words)


def _raise(message: str) -> None:
    raise Refusal(str(message)[:200])


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
        optimized=False,  # it would compute constants, uncounted, while it compiles
    )
    own = {**made.filters, "tojson": _tojson}
    made.filters = {
        name: counted_filter(name, own[name], deep=name in _DEEP, quick=name in _QUICK)
        for name in (*_QUICK, *_DEEP, *_FILTERS)
    }
    made.filters |= {
        "_compare": compare,
        "_copy": spend_copy,
        "_each": spend_each,
        "_key": spend_key,
        "_text": spend_text,
    }
    known: dict[str, Any] = made.tests
    tests: dict[str, Callable[..., Any]] = {name: known[name] for name in _TESTS}
    made.tests = tests | {name: counted_test(name, tests[name]) for name in _COSTLY_TESTS}
    made.globals = {name: made.globals[name] for name in ("namespace", "range")}
    made.globals |= {"raise_exception": _raise, "strftime_now": _strftime_now}
    return made


_sandbox = _make()
