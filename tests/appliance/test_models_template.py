"""A chat template may render chats and do nothing else: no reach, no flood, no endless loop."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest

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
    ],
)
def test_what_is_counted_renders_as_transformers_does(template: str) -> None:
    from transformers.utils.chat_template_utils import _compile_jinja_template

    wanted = _compile_jinja_template(template).render(
        messages=CHAT, bos_token="<s>", eos_token="</s>", add_generation_prompt=True
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
