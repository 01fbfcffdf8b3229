"""A chat template may render chats and do nothing else: no reach, no flood, no endless loop."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance.core import crash
from appliance.core.errors import ModelRejected
from appliance.models.importing import DEMO_BASE
from appliance.models.load import chat_template, check_checkpoint
from appliance.models.prompt import check_template, render

CHAT = [
    {"role": "user", "content": "Hello <b>, é."},
    {"role": "assistant", "content": "<think>x</think>Yes"},
    {"role": "user", "content": "  Why?\n"},
]


def rendered(template: str, chat: list[dict[str, str]] | None = None) -> str:
    return render(template, chat or CHAT, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize(
    "template",
    [
        "{{ bos_token }}{% for m in messages %}{{ '<|' ~ m.role ~ '|>' ~ loop.index ~ m['content'] | trim }}"
        "{{ eos_token if not loop.last }}{% endfor %}",
        "{% set ns = namespace(x='', last=-1) %}{% for m in messages[::-1] %}{% set i = (messages|length - 1)"
        " - loop.index0 %}{% if m.role == 'user' and ns.last < 0 %}{% set ns.last = i %}{% endif %}"
        "{% set ns.x = m.content.split('</think>')[-1].lstrip('\\n') + ns.x %}{% endfor %}"
        "{{ ns.x }}{{ ns.last }}",
        "{% macro part(m, n=2) %}{{ m.content | upper }}{{ n * 3 }}{% endmacro %}{% for m in messages if"
        " m.role != 'system' %}{% if loop.index > 2 %}{% break %}{% endif %}{{ part(m) }}{% endfor %}",
        "{{ {'a': messages[0].content, 'b': [1, none, true]} | tojson }}{{ [1, 2] | join('-') }}{{ ['x'] }}"
        "{{ messages | map(attribute='role') | list | string }}{{ (messages | selectattr('role', 'equalto',"
        " 'user') | list) | length }}{% for k, v in messages[0] | dictsort %}{{ k }}{% endfor %}",
        "{%- generation %}{{ 7 // 2 }}{{ 7 % 4 }}{% endgeneration %}{{ range(3) | list }}{{ missing }}"
        "{% if enable_thinking is defined and enable_thinking is false %}x{% endif %}",
        "{% if tools is none and documents is none %}a{% endif %}{% if tools is defined %}b{% endif %}"
        "{{ tools }}[{{ pad_token }}]{{ pad_token is defined }}",
        "{{ 1 < 2 < 3 }}{{ 1 < 2 > 3 }}{{ 'a' in 'abc' }}{{ 'role' in messages[0] }}{{ 3 not in [1, 2] }}"
        "{{ messages[0] == messages[1] }}{{ [1, 2] == [1, 2] }}{{ missing == none }}{{ 2 >= 2 <= 1 }}"
        "{{ messages[0][['role'][0]] }}{{ messages[1:][0].role }}{{ {'a' ~ 'b': 1} }}{{ [2, 1] | sort }}"
        "{{ 'ab' | replace(new='c', old='a') }}{{ 'a\nb' | indent(first=true, width=2) }}"
        "{{ 2.345 | round(1) }}{{ [1, 2] | join(d='+') }}{{ messages | join(attribute='role', d=', ') }}"
        "{{ 3 is odd }}{{ 5 - 2 }}"
        "{{ [1, 1] | unique | list }}{{ {'a': [1]} | tojson(indent=4) }}{{ 'a' | safe }}"
        "{{ 'ab'.index('b') }}",
    ],
)
def test_what_is_counted_renders_as_transformers_does(template: str) -> None:
    from transformers.utils.chat_template_utils import _compile_jinja_template

    wanted = _compile_jinja_template(template).render(
        messages=CHAT,
        tools=None,
        documents=None,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="",
        add_generation_prompt=True,
    )
    assert rendered(template) == wanted


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ ''.__class__ }}", "__class__"),
        ("{{ ''['__class__'].x() }}", "not allowed"),
        ("{% include 'x' %}", "Include"),
        ("{% import 'x' as y %}", "Import"),
        ("{% extends 'x' %}", "Extends"),
        ("{% block a %}{% endblock %}", "Block"),
        ("{{ lipsum() }}", "lipsum"),
        ("{{ cycler(1) }}", "cycler"),
        ("{% set f = range %}{{ f(3) }}", "f,"),
        ("{{ messages[0].role.format(1) }}", "format"),
        ("{{ ''['ljust'](9) }}", "computed function"),
        ("{{ 'x'.ljust(10) }}", "ljust"),
        ("{{ 'x' | center(10) }}", "center"),
        ("{{ 'x' | attr('y') }}", "attr"),
        ("{{ 2 ** 3 }}", "Pow"),
        ("{% for a in messages recursive %}{{ loop(a) }}{% endfor %}", "For"),
        ("{% autoescape true %}x{% endautoescape %}", "Scope"),
        ("x" * 100_001, "100001 characters"),
        ("{{ " + "not " * 100 + "1 }}", "nested too deeply"),
        ("{{ " + "(" * 40_000, "recursion"),
        ("{{ " + "1+" * 5000 + "1 }}", "recursion"),
        ("{{ 'x'" + "|trim" * 3000 + " }}", "recursion"),
        ("{% if a %}1" + "{% elif b %}2" * 3000 + "{% endif %}", "recursion"),
        ("{{ messages", "unexpected end"),
        ("{{ " + "9" * 90_000 + " }}", "digits"),
    ],
)
def test_what_is_not_listed_is_refused_before_it_runs(template: str, words: str) -> None:
    with pytest.raises(ModelRejected, match=words):
        check_template(template)


_NEST = "{% set a=[1] %}{% set b=[1] %}" + "{% set a=[a,a] %}{% set b=[b,b] %}" * 50
_NEST_LOW = "{% set a=[1] %}{% set b=[1] %}" + "{% set a=[a,a] %}{% set b=[b,b] %}" * 35
_TUPLE = "{% set a=(1,) %}{% set b=(1,) %}" + "{% set a=(a,a) %}{% set b=(b,b) %}" * 50
_LONG = "{% set n = namespace(s='aaaa') %}{% for i in range(19) %}{% set n.s = n.s + n.s %}{% endfor %}"
_MANY = "{% for i in range(99999) %}"
_DOUBLE = "{% set n = namespace(x='ab', l=[1, 2], d='a', i=2) %}{% for i in range(70) %}"


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10**1 }}",
        "{{ 'a' * 9999999999 }}",
        "{{ [1] * 9999999999 }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ strftime_now('%9999999999d') }}",
        _MANY * 3 + "{% endfor %}" * 3,
        _MANY + "x" * 90_000 + "{% endfor %}",
        _DOUBLE + "{% set n.x = n.x + n.x %}{% endfor %}",
        _DOUBLE + "{% set n.x = n.x ~ n.x %}{% endfor %}",
        _DOUBLE + "{% set n.l = n.l + n.l %}{% endfor %}",
        _DOUBLE + "{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}",
        _DOUBLE + "{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l | string }}",
        _DOUBLE + "{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l | tojson }}",
        _DOUBLE + "{% set n.x = n.x | replace('a', n.x) %}{% endfor %}",
        _DOUBLE + "{% set n.x = n.x.replace('a', n.x) %}{% endfor %}",
        _DOUBLE + "{% set n.x = [n.x, n.x] | join(n.x) %}{% endfor %}",
        _DOUBLE + "{% set n.x = n.x.join([n.x, n.x, n.x]) %}{% endfor %}",
        _DOUBLE + "{% set n.x = n.x.join(n.x) %}{% endfor %}",
        _DOUBLE + "{% set n.i = n.i * n.i %}{% endfor %}",
        _DOUBLE + "{% set n.i = n.i + n.i %}{% endfor %}",
        "{{ 'a' | indent(999999999, true) }}",
        "{{ 'a\n' | indent(width=999999999) }}",
        "{{ [1] | tojson(indent=999999999) }}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(n) %}" + "x" * 9000 + "{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
        "{{ m(50) }}",
        "{% for c in range(99999) | list | string | list %}{% for d in range(999) %}a{% endfor %}"
        "{% endfor %}",
    ],
)
def test_a_flood_ends_early_and_small(template: str) -> None:
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelRejected):
        rendered(template)
    assert time.process_time() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # kilobytes


def in_a_child(template: str) -> None:
    """Render it where what never gives the interpreter back, or takes all memory, can be ended."""
    script = (
        "import resource, sys\n"
        "from appliance.models.prompt import render\n"
        "from appliance.core.errors import ModelRejected\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000,) * 2)\n"
        "template = sys.stdin.read()\n"
        "chat = [{'role': 'user', 'content': 'x'}]\n"
        "try:\n    render(template, chat, bos_token='', eos_token='')\n"
        "except ModelRejected as refusal:\n    print('refused', refusal)\n"
        # ru_maxrss would begin with what the parent had
        "status = open('/proc/self/status').read()\n"
        "print(status.partition('VmHWM:')[2].split()[0])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        input=template,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    words, peak = ended.stdout.rsplit(maxsplit=1)
    assert words.startswith("refused")
    assert "MemoryError" not in words
    assert "not allowed" not in words
    assert int(peak) < 600_000  # kilobytes


@pytest.mark.parametrize(
    "template",
    [
        _NEST + "{{ 'x' if a == b }}",
        _NEST + "{{ 'x' if a < b }}",
        _NEST_LOW + "{{ 'x' if a == b }}",
        _NEST + "{{ 'x' if a in [b] }}",
        _NEST + "{{ 'x' if 1 == 1 != a not in [b] }}",
        _NEST + "{{ 'x' if a is eq b }}",
        _NEST + "{{ 'x' if a is in [b] }}",
        _NEST + "{{ [a] | select('equalto', b) | list | length }}",
        _NEST + "{{ [b].index(a) }}",
        _NEST + "{{ [b].count(a) }}",
        _NEST + "{{ [a, b] | sort | length }}",
        _NEST + "{{ [a, b] | min | length }}",
        _NEST + "{{ [a, b] | max | length }}",
        _TUPLE + "{{ [a, b] | unique | list | length }}",
        _TUPLE + "{{ {a: 1} | length }}",
        _TUPLE + "{{ {}[a] }}",
        _TUPLE + "{{ {}.get(a) }}",
        _TUPLE + "{{ a in {} }}",
        _LONG + _MANY + "{% if 'aaaaaaaaaaaaaaab' in n.s %}{% endif %}{% endfor %}",
        _LONG + _MANY + "{% if n.s.find('aaaaaaaaaaaaaaab') %}{% endif %}{% endfor %}",
        _LONG + _MANY + "{% if n.s[::-1] %}{% endif %}{% endfor %}",
        _LONG + "{{ n.s.strip('b' + n.s) }}",
        "{{ 5 | round(-999999999) }}",
    ],
)
def test_a_comparison_of_what_never_ends_is_refused(template: str) -> None:
    in_a_child(template)


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' | indent(first=true, width=900000000) }}",
        _LONG + "{{ n.s | replace(new=n.s, old='a') }}",
        _LONG + "{{ range(9999) | list | join(attribute='x', d=n.s) }}",
        _LONG + "{{ {'a': n.s}.values() | join(n.s) | length }}",
        _LONG + "{{ [1, 2] | tojson(separators=(n.s, ':')) }}",
        "{{ 'a\\ra\\ra\\ra\\ra\\ra\\ra' | indent(900000, true) }}",
        "{{ '%999999999d' is odd }}",
        "{{ '%999999999d' is divisibleby 3 }}",
    ],
)
def test_named_arguments_are_held_against_the_same_limits(template: str) -> None:
    in_a_child(template)


@pytest.mark.parametrize(
    "step",
    [
        *(f"a | {name}" for name in ("upper", "lower", "title", "capitalize", "trim", "safe")),
        "a | replace('x', 'y')",
        "a is lower",
        "raise_exception(a)",
        "{}[a].x",
        "namespace(x=a)",
        "{'x': a}.values()",
    ],
)
def test_a_nest_of_lists_is_not_written_out(step: str) -> None:
    in_a_child(_NEST + "{{ " + step + " }}")


def test_nothing_is_computed_while_a_template_is_compiled() -> None:
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check_template("{% if false %}{{ 'a' | indent(first=true, width=900000000) }}{% endif %}")
    check_template("{% if false %}{{ ('a' | indent(900000000, true)) ~ 'b' }}{% endif %}")
    assert rendered("{% if false %}{{ 'a' | round(-999999999) }}{{ 'a' * 2 }}{% endif %}x") == "x"
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_long_chat_has_room() -> None:
    chat = [{"role": ("user", "assistant")[i % 2], "content": "word " * 800} for i in range(601)]
    template = chat_template(DEMO_BASE)
    assert len(rendered(template, chat)) > 2_000_000
    assert rendered(template, chat) == rendered(template, chat)  # an allowance is for one prompt


def test_a_base_with_such_a_template_is_not_imported(tmp_path: Path) -> None:
    for file in DEMO_BASE.iterdir():
        (tmp_path / file.name).symlink_to(file)
    check_checkpoint(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.jinja").write_text("{{ lipsum(n=10000) }}")
    with pytest.raises(ModelRejected, match="lipsum"):
        check_checkpoint(tmp_path)


SECRET = "Zoltan Quux has a rash"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('only two turns, please') }}", "only two turns, please"),
        ("{{ raise_exception('cannot take ' ~ messages[0].content) }}", "it refuses the messages"),
        ("{{ raise_exception(messages[0].content) }}", "it refuses the messages"),
        ("{{ messages[0][messages[0].content].x }}", "UndefinedError"),
        ("{{ messages[0].content + 1 }}", ""),
        ("{{ messages[0].content % 2 }}", "it uses % on something else than numbers"),
    ],
)
def test_what_a_template_says_against_messages_shows_no_word_of_them(template: str, says: str) -> None:
    with pytest.raises(ModelRejected) as caught:
        rendered(template, [{"role": "user", "content": SECRET}])
    assert says in caught.value.message
    assert "Zoltan" not in caught.value.message and "rash" not in caught.value.message
    assert "Zoltan" not in crash.trace(caught.value)
