"""What a request may say, and that everything else is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.serve.requests import Ask, Refused, read_chat, read_text


def chat(**more: Any) -> Ask:
    return read_chat({"model": "m", "messages": [{"role": "user", "content": "x"}], **more}, most_tokens=50)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logprobs", True),
        ("top_logprobs", 2),
        ("logit_bias", {"5": 100}),
        ("n", 2),
        ("n", True),
        ("echo", True),
        ("best_of", 3),
        ("tools", [{}]),
        ("grammar", "root ::= x"),
        ("cache_prompt", True),
        ("presence_penalty", 0.5),
        ("response_format", {"type": "xml"}),
        ("response_format", "text"),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("temperature", "1"),
        ("top_p", -0.1),
        ("top_p", 10**400),
        ("seed", 1.5),
        ("seed", 1 << 70),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stop", [""]),
        ("stop", [7]),
        ("stream", "yes"),
        ("stream_options", {"include_usage": 1}),
        ("stream_options", {"other": True}),
        ("model", 7),
        ("messages", []),
        ("messages", "x"),
        ("messages", [{"role": "user"}]),
        ("messages", [{"role": "function", "content": "x"}]),
        ("messages", [{"role": ["user"], "content": "x"}]),
        ("messages", [{"role": "user", "content": "x", "tool_calls": []}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]),
        ("messages", [{"role": "user", "content": "\ud800"}]),
    ],
)
def test_what_we_do_not_do_is_refused(name: str, value: Any) -> None:
    with pytest.raises(Refused) as caught:
        chat(**({"stream": True} if name == "stream_options" else {}) | {name: value})
    error = caught.value.body()["error"]
    assert caught.value.status == 400
    assert error["type"] == "invalid_request_error"
    assert (error["param"] or "").startswith(name) or name in error["message"]


def test_values_that_ask_for_nothing_are_taken() -> None:
    chat(n=1, logprobs=False, logit_bias=None, tools=[], presence_penalty=0.0, user="u", stop=None, seed=None)


def test_what_is_asked_is_what_is_read() -> None:
    ask = chat(max_completion_tokens=9, temperature=1, top_p=0.5, seed=-1, stop="\n", stream=True)
    settings = ask.settings
    assert (settings.max_tokens, settings.temperature, settings.top_p) == (9, 1.0, 0.5)
    assert (settings.stop, settings.seed, ask.stream, ask.usage) == (("\n",), 0x7FFFFFFF, True, False)
    assert chat(max_tokens=10**6).settings.max_tokens == 50
    assert chat(stream=True, stream_options={"include_usage": True}).usage
    assert chat(response_format={"type": "text"}).form == "text"
    assert chat().form is None


def test_texts_are_normalised_and_parts_joined() -> None:
    parts = [{"type": "text", "text": "Cafe\u0301 "}, {"type": "text", "text": "x"}]
    ask = chat(messages=[{"role": "developer", "content": parts}])
    assert ask.messages == ({"role": "system", "content": "Café x"},)
    assert read_text({"model": "m", "prompt": ["Cafe\u0301"]}, most_tokens=5).prompt == "Café"
    for prompt in ([1, 2], [[1]], ["a", "b"], None, 5):
        with pytest.raises(Refused):
            read_text({"model": "m", "prompt": prompt}, most_tokens=5)
    for odd in (
        {"type": "text", "text": "x", "": None},
        {"type": "text"},
        {"type": "image_url", "text": "x"},
    ):
        with pytest.raises(Refused):
            chat(messages=[{"role": "user", "content": [odd]}])


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["model", "messages", "prompt", "n", "stop", "seed", "stream", "tools", "x"]), _JSON
    )
    | _JSON
)
def test_any_json_is_read_or_refused(body: Any) -> None:
    for read in (read_chat, read_text):
        try:
            read(body, most_tokens=5)
        except Refused as refused:
            json.dumps(refused.body())
