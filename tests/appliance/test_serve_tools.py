"""Calls of tools: what is read back as a call, what stays text, and what may be sent as a tool."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.serve.answers import _with_calls
from appliance.serve.engine import Piece
from appliance.serve.messages import clean, read_messages, read_tools
from appliance.serve.refusals import Refused
from appliance.serve.requests import Ask, read_chat
from appliance.serve.schemas import check_schema
from appliance.serve.tools import forced, read_calls, takes_tools

PARAMETERS = {
    "type": "object",
    "properties": {"ward": {"type": "string"}, "beds": {"type": "integer"}},
    "required": ["ward"],
}
TOOL = {"type": "function", "function": {"name": "find_bed", "description": "", "parameters": PARAMETERS}}
CALL = '{"name": "find_bed", "arguments": {"ward": "B <3"}}'
HERMES = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"<tool_call>\n{CALL}\n</tool_call>", ""),
        (f"I will look. <tool_call>{CALL}</tool_call>", "I will look."),
        (CALL, ""),
        (f" [{CALL}] ", ""),
        ('{"name": "find_bed", "parameters": {"ward": "B <3"}}', ""),
    ],
)
def test_the_usual_ways_to_write_a_call_are_read(text: str, said: str) -> None:
    shown, calls = read_calls(text, [TOOL], must=False)
    assert shown == said
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [("find_bed", {"ward": "B <3"})]


def test_two_calls_are_two() -> None:
    _, calls = read_calls(f"<tool_call>{CALL}</tool_call><tool_call>{CALL}</tool_call>", [TOOL], must=False)
    assert len(calls) == 2 and calls[0].id != calls[1].id


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "drop_table", "arguments": {}}',
        '{"name": "find_bed", "arguments": {}}',
        '{"name": "find_bed", "arguments": "ward B"}',
        '{"name": "find_bed"',
        "Ward B has a bed.",
        "[" * 2000,
    ],
)
def test_what_is_no_whole_call_of_a_known_tool_stays_text(text: str) -> None:
    assert read_calls(text, [TOOL], must=False) == (text, ())
    with pytest.raises(Refused) as refused:
        read_calls(text, [TOOL], must=True)
    assert refused.value.status == 422


def test_a_forced_call_is_a_schema_of_the_tools_wanted() -> None:
    other = {"type": "function", "function": {"name": "other", "parameters": {"type": "object"}}}
    assert forced([TOOL], "auto") is None
    one = forced([TOOL, other], "find_bed")
    assert one is not None and one["properties"]["name"] == {"const": "find_bed"}
    both = forced([TOOL, other], "required")
    assert both is not None and len(both["anyOf"]) == 2


def test_only_a_template_that_shows_tools_takes_them() -> None:
    assert takes_tools(HERMES, "", "")
    assert not takes_tools("{% for m in messages %}{{ m.content }}{% endfor %}", "", "")


@given(st.text(alphabet='<tol_ca>/{"x}', max_size=30), st.lists(st.integers(1, 5), min_size=1, max_size=40))
def test_text_that_is_no_call_arrives_whole_however_it_is_cut(text: str, sizes: list[int]) -> None:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(Piece(text=text[at : at + size]))
        at += size
    pieces.append(Piece(text=text[at:], finish="stop"))
    assert "".join(part.piece.text for part in _said(pieces)) == text


def test_text_streams_until_a_call_begins() -> None:
    whole = f"Let me see, 1 < 2. <tool_call>{CALL}</tool_call>"
    parts = _said([*(Piece(text=char) for char in whole), Piece(text="", finish="stop")])
    shown = [part.piece.text for part in parts if part.piece.text]
    assert "".join(shown) == "Let me see, 1 < 2. " and len(shown) > 10
    assert parts[-1].piece.finish == "tool_calls" and parts[-1].calls[0].name == "find_bed"


def _said(pieces: list[Piece]) -> list[Any]:
    async def give() -> AsyncGenerator[Piece, None]:
        for piece in pieces:
            yield piece

    async def take() -> list[Any]:
        ask = Ask(model="m", settings=None, stream=True, usage=False, tools=(TOOL,))  # type: ignore[arg-type]
        return [part async for part in _with_calls(give(), ask)]

    return asyncio.run(take())


def test_tools_and_choices_are_checked() -> None:
    assert read_tools([TOOL], {"type": "function", "function": {"name": "find_bed"}})[1] == "find_bed"
    assert read_tools(None, None) == ((), "auto")
    for tools, choice in (
        ([TOOL, TOOL], None),
        ([TOOL], {"type": "function", "function": {"name": "nobody"}}),
        ([TOOL], {"type": "function"}),
        ([], "required"),
        ([TOOL], "always"),
        ([{"type": "function", "function": {"name": "a b"}}], None),
        ([{"type": "function", "function": {"name": "auto"}}], None),
        ([TOOL | {"type": "web_search"}], None),
        ("find_bed", None),
        ([TOOL] * 33, None),
    ):
        with pytest.raises(Refused):
            read_tools(tools, choice)


def test_calls_and_their_results_are_messages() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "find_bed", "arguments": '{"ward": "B"}'}}
    found = read_messages(
        [
            {"role": "user", "content": "a bed?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "bed 4"},
        ]
    )
    assert found[1]["tool_calls"][0]["function"] == {"name": "find_bed", "arguments": {"ward": "B"}}
    assert found[2] == {"role": "tool", "content": "bed 4"}
    for bad in ("{", "[]", '{"a": "\ud800"}', None):
        broken = call | {"function": {"name": "find_bed", "arguments": bad}}
        with pytest.raises(Refused):
            read_messages([{"role": "assistant", "content": "", "tool_calls": [broken]}])
    with pytest.raises(Refused):
        read_messages([{"role": "user", "content": "", "tool_calls": [call]}])


@pytest.mark.parametrize(
    "schema",
    [
        "object",
        {"$ref": "https://example.org/schema"},
        {"type": "string", "pattern": "(a+)+$"},
        {"type": "string", "maxLength": 100_000},
        {"type": "array", "items": {"type": "array", "minItems": 1 << 40}},
        {"enum": ["x" * 20_000]},
        json.loads('{"items":' * 20 + "{}" + "}" * 20),
        {"allOf": [{"$ref": "#/allOf/0"}]},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
        {"properties": {"next": {"$ref": "#/properties/next/items"}}, "type": "object"},
        {"anyOf": [{"properties": {"a": {"$ref": "#/anyOf/0"}}}] * 12},
        {"$defs": {"a": {"anyOf": [{"type": "null"}] * 90}}, "anyOf": [{"$ref": "#/$defs/a"}] * 12},
        {"properties": {f"p{number}": {"type": "null"} for number in range(65)}},
        {"enum": ["\ud800"]},
        {"minimum": 10**400},
        {"minimum": float("inf")},
        {"required": [["a"]]},
    ],
)
def test_schemas_that_would_explode_are_refused(schema: Any) -> None:
    with pytest.raises(Refused):
        check_schema(schema, "schema")


def test_parts_of_a_schema_may_be_named_and_used_twice() -> None:
    bed = {"type": "object", "properties": {"ward": {"type": "string"}}}
    schema = {
        "$defs": {"bed": bed},
        "properties": {"old": {"$ref": "#/$defs/bed"}, "new": {"$ref": "#/$defs/bed"}},
    }
    assert check_schema(schema, "schema") == schema


def test_marks_that_pile_up_are_refused_and_quickly() -> None:
    for text in ("a" + "\u0301\u0327\u0323" * 100_000, "x" * 50 + "\u0301" * 31):
        with pytest.raises(Refused, match="combining marks"):
            clean(text, "prompt")
    assert clean("a" + "\u0301" * 30, "prompt") and clean("\u1100\u1161" * 1000, "prompt")


def test_no_more_messages_than_a_conversation_has() -> None:
    with pytest.raises(Refused, match="1000 messages"):
        read_messages([{"role": "user", "content": "x"}] * 1001)


def test_formats_of_an_answer() -> None:
    def asked(form: Any, **more: Any) -> Ask:
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "response_format": form}
        return read_chat(body | more, most_tokens=9)

    assert asked({"type": "json_object"}).schema == {"type": "object"}
    inner = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": PARAMETERS}}
    assert asked(inner).schema == PARAMETERS
    assert asked({"type": "label"}).form == "label"
    for bad in ("text", {"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": []}):
        with pytest.raises(Refused):
            asked(bad)
    with pytest.raises(Refused):
        asked(inner, tools=[TOOL])
