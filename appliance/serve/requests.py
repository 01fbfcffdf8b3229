"""Bodies of OpenAI-style requests, checked: what is not understood is refused, never ignored.

Pure: a dict in, a dataclass out. No message here repeats what the user sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from appliance.serve.engine import Settings
from appliance.serve.messages import Message, clean, read_messages, read_tools
from appliance.serve.refusals import Refused
from appliance.serve.schemas import check_schema

FORMATS = ("text", "label", "json_object", "json_schema")
_SHARED = {"model", "max_tokens", "temperature", "top_p", "seed", "stop", "stream", "stream_options", "user"}
_CHAT = _SHARED | {
    *("messages", "max_completion_tokens", "response_format"),
    *("tools", "tool_choice", "parallel_tool_calls", "collections"),
}
_TEXT = _SHARED | {"prompt"}
# Parameters we do not have, with the values that ask for nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "logprobs": (False,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "suffix": ("",),
    "store": (False,),
    "metadata": ({},),
    "service_tier": ("auto", "default"),
    "reasoning_effort": ("none",),
}
_MOST_STOPS, _LONGEST_STOP, _LONGEST_USER, _MOST_COLLECTIONS = 4, 200, 128, 8
_COLLECTION = re.compile(r"[a-z0-9-]{1,40}")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A checked request. `messages` is empty for /v1/completions, `prompt` for chat.

    `form` is one of FORMATS, or None for what the model was made for; `schema` is there for the last
    two. `choice` is what read_tools gives. `usage`: a stream ends with the counts. `user` is the
    caller's own name for its user; `collections` are the documents to answer from.
    """

    model: str
    settings: Settings
    stream: bool
    usage: bool
    messages: tuple[Message, ...] = field(default=(), repr=False)
    prompt: str = field(default="", repr=False)
    form: str | None = None
    schema: dict[str, Any] | None = None
    tools: tuple[Message, ...] = ()
    choice: str = "auto"
    user: str = ""
    collections: tuple[str, ...] = ()


def read_chat(body: Any, *, most_tokens: int) -> Ask:
    """The request of /v1/chat/completions. More than `most_tokens` are not given, whatever is asked.

    Raises:
        Refused: anything missing, malformed or not supported.
    """
    values = _known(body, _CHAT)
    messages = read_messages(values.get("messages"))
    form, schema = _form(values.get("response_format"))
    tools, choice = read_tools(values.get("tools"), values.get("tool_choice"))
    if tools and schema is not None:
        raise Refused("response_format and tools cannot be had together.", param="tools")
    _flag(values, "parallel_tool_calls")
    return _ask(
        values,
        most_tokens,
        messages=messages,
        form=form,
        schema=schema,
        tools=() if choice == "none" else tools,
        choice=choice,
        collections=_collections(values.get("collections")),
    )


def read_text(body: Any, *, most_tokens: int) -> Ask:
    """The request of /v1/completions, with one text as prompt; see `read_chat`."""
    values = _known(body, _TEXT)
    prompt = values.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise Refused("prompt must be one text.", param="prompt")
    return _ask(values, most_tokens, prompt=clean(prompt, "prompt"), form="text")


def _ask(values: Mapping[str, Any], most_tokens: int, **rest: Any) -> Ask:
    model = values.get("model")
    if not isinstance(model, str):
        raise Refused("model must name the model.", param="model")
    stream = _flag(values, "stream")
    options = values.get("stream_options", {})
    if not isinstance(options, dict) or not options.keys() <= {"include_usage"}:
        raise Refused("stream_options may only hold include_usage.", param="stream_options")
    usage = _flag(options, "include_usage", param="stream_options")
    wanted = values.get("max_completion_tokens", values.get("max_tokens"))
    name = "max_completion_tokens" if values.get("max_completion_tokens") is not None else "max_tokens"
    if wanted is not None and not _whole(wanted, 1, 1 << 31):
        raise Refused(f"{name} must be a whole number above 0.", param=name)
    seed = values.get("seed")
    if seed is not None and not _whole(seed, -(1 << 63), (1 << 64) - 1):
        raise Refused("seed must be a whole number.", param="seed")
    user = values.get("user", "")
    if not isinstance(user, str) or len(user) > _LONGEST_USER:
        raise Refused(f"user must be a text of at most {_LONGEST_USER} characters.", param="user")
    return Ask(
        model=model,
        stream=stream,
        usage=stream and usage,
        user=user,
        settings=Settings(
            max_tokens=min(wanted or most_tokens, most_tokens),
            temperature=_number(values, "temperature", 0.0, 2.0, otherwise=0.0),
            top_p=_number(values, "top_p", 0.0, 1.0, otherwise=1.0),
            seed=None if seed is None else seed & 0x7FFFFFFF,
            stop=_stops(values.get("stop")),
        ),
        **rest,
    )


def _known(body: Any, accepted: set[str]) -> dict[str, Any]:
    """The values that are not null; refuses every parameter that would be ignored."""
    if not isinstance(body, dict):
        raise Refused("The body must be a JSON object.")
    values = {name: value for name, value in body.items() if value is not None}
    for name in values.keys() - accepted:
        neutral = _NEUTRAL.get(name)
        if neutral is None:
            shown = name if name.isidentifier() and len(name) <= 40 else "A parameter"
            raise Refused(f"{shown} is not supported here.", param=shown, code="unsupported_parameter")
        if values[name] not in neutral or isinstance(values[name], bool) != isinstance(neutral[0], bool):
            raise Refused(f"{name} is not supported here.", param=name, code="unsupported_parameter")
    return values


def _stops(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if texts is None:
        return ()
    if (
        not isinstance(texts, list)
        or len(texts) > _MOST_STOPS
        or not all(isinstance(text, str) and 0 < len(text) <= _LONGEST_STOP for text in texts)
    ):
        raise Refused(f"stop must be one to {_MOST_STOPS} short texts.", param="stop")
    return tuple(clean(text, "stop") for text in texts)


def _form(value: Any) -> tuple[str | None, dict[str, Any] | None]:
    if value is None:
        return None, None
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in FORMATS:
        raise Refused(f"response_format.type must be one of {', '.join(FORMATS)}.", param="response_format")
    if kind == "json_schema":
        inner = value.get("json_schema")
        wanted = inner.get("schema") if isinstance(inner, dict) else None
        return kind, check_schema(wanted, "response_format.json_schema.schema")
    return kind, {"type": "object"} if kind == "json_object" else None


def _collections(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if (
        not isinstance(value, list)
        or len(value) > _MOST_COLLECTIONS
        or not all(isinstance(name, str) and _COLLECTION.fullmatch(name) for name in value)
    ):
        raise Refused(
            f"collections must be at most {_MOST_COLLECTIONS} names of collections.", param="collections"
        )
    return tuple(dict.fromkeys(value))


def _flag(values: Mapping[str, Any], name: str, *, param: str | None = None) -> bool:
    value = values.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refused(f"{name} must be true or false.", param=param or name)
    return bool(value)


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _number(values: Mapping[str, Any], name: str, low: float, high: float, *, otherwise: float) -> float:
    value = values.get(name, otherwise)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"{name} must be a number.", param=name)
    if not low <= value <= high:  # also true of NaN
        raise Refused(f"{name} must be between {low:g} and {high:g}.", param=name)
    return float(value)
