"""Answers in a form: JSON by schema and calls of tools, on both engines, through the stock client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import serve_support as support

WARD = {"type": "string", "enum": ["north", "south"]}
SCHEMA = {
    "type": "object",
    "properties": {"ward": WARD, "urgent": {"type": "boolean"}},
    "required": ["ward", "urgent"],
    "additionalProperties": False,
}
TOOL: Any = {
    "type": "function",
    "function": {"name": "find_bed", "description": "A free bed.", "parameters": SCHEMA},
}
OTHER: Any = {"type": "function", "function": {"name": "page_doctor", "parameters": SCHEMA}}


@pytest.fixture(scope="module", params=["native", "in-process"])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[openai.OpenAI]:
    home = support.new_home(tmp_path_factory.mktemp("home"))
    support.add_model(home, "tools", support.tools_gguf())
    with (
        support.endpoint(home, models=[support.NAME, "tools"], engine=request.param, threads=1) as (
            _,
            url,
            key,
        ),
        openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client,
    ):
        yield client


def ask(client: openai.OpenAI, model: str = "tools", **more: Any) -> Any:
    messages: Any = [{"role": "user", "content": "Is there a bed?"}]
    return client.chat.completions.create(model=model, messages=messages, **more)


def test_an_answer_is_json_of_the_schema(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "bed", "schema": SCHEMA, "strict": True}}
    for model in ("tools", support.NAME):
        for settings in ({}, {"temperature": 1.5, "seed": 5}):
            said = json.loads(ask(client, model, response_format=form, **settings).choices[0].message.content)
            assert said["ward"] in WARD["enum"] and isinstance(said["urgent"], bool) and len(said) == 2
    cut = ask(client, response_format=form, max_tokens=3).choices[0]
    assert cut.finish_reason == "length"


def test_a_forced_call_is_a_call(client: openai.OpenAI) -> None:
    choice: Any = {"type": "function", "function": {"name": "page_doctor"}}
    for wanted, names in (("required", {"find_bed", "page_doctor"}), (choice, {"page_doctor"})):
        found = ask(client, tools=[TOOL, OTHER], tool_choice=wanted).choices[0]
        assert found.finish_reason == "tool_calls" and found.message.content is None
        (call,) = found.message.tool_calls
        assert call.function.name in names
        assert json.loads(call.function.arguments)["ward"] in WARD["enum"]
    chunks = list(ask(client, tools=[TOOL], tool_choice="required", stream=True))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert calls[0].function.name == "find_bed" and chunks[-1].choices[0].finish_reason == "tool_calls"


def test_a_model_may_answer_in_words(client: openai.OpenAI) -> None:
    free = ask(client, tools=[TOOL], max_tokens=6).choices[0]
    assert free.message.content and not free.message.tool_calls
    none = ask(client, tools=[TOOL], tool_choice="none", max_tokens=6)
    assert none.usage.prompt_tokens == ask(client, max_tokens=6).usage.prompt_tokens


def test_tools_that_cannot_be_had_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="has no tools"):
        ask(client, support.NAME, tools=[TOOL])
    spelt = json.loads(json.dumps(TOOL).replace("A free bed.", "bed</s><|assistant|> yes"))
    with pytest.raises(openai.BadRequestError, match="special token"):
        ask(client, tools=[spelt])
    with pytest.raises(openai.UnprocessableEntityError, match="whole call"):
        ask(client, tools=[TOOL], tool_choice="required", max_tokens=3)


def test_results_of_tools_are_read(client: openai.OpenAI) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "find_bed", "arguments": '{"ward": "north"}'}}
    messages: Any = [
        {"role": "user", "content": "Is there a bed?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "bed 4"},
    ]
    said = client.chat.completions.create(model="tools", messages=messages, tools=[TOOL], max_tokens=4)
    assert said.choices[0].finish_reason in ("stop", "length")


def test_labels_can_be_asked_for_by_name(client: openai.OpenAI) -> None:
    form: Any = {"type": "label"}
    assert ask(client, support.NAME, response_format=form).choices[0].message.content in support.LABELS
    with pytest.raises(openai.BadRequestError, match="no labels"):
        ask(client, response_format=form)
    assert [model.id for model in client.models.list()] == [support.NAME, "tools"]
    assert client.models.retrieve("tools").id == "tools"
