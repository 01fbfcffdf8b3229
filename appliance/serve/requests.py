"""Bodies of OpenAI-style requests, checked: what is not understood is refused, never ignored.

Pure: a dict in, a dataclass out. No message here repeats what the user sent.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.serve.engine import Settings

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_SHARED = {"model", "max_tokens", "temperature", "top_p", "seed", "stop", "stream", "stream_options", "user"}
_CHAT = _SHARED | {"messages", "max_completion_tokens", "response_format"}
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
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "suffix": ("",),
    "store": (False,),
    "metadata": ({},),
}
_MOST_STOPS, _LONGEST_STOP = 4, 200


class Refused(Exception):
    """A request that is answered with an error in OpenAI's shape."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.kind, self.param, self.code = message, status, kind, param, code

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A checked request. `messages` is empty for /v1/completions, `prompt` for chat.

    `free`: the caller wants text even of a label model. `usage`: a stream ends with the counts.
    """

    model: str
    settings: Settings
    stream: bool
    usage: bool
    messages: tuple[dict[str, str], ...] = ()
    prompt: str = ""
    free: bool = False


def read_chat(body: Any, *, most_tokens: int) -> Ask:
    """The request of /v1/chat/completions. More than `most_tokens` are not given, whatever is asked.

    Raises:
        Refused: anything missing, malformed or not supported.
    """
    values = _known(body, _CHAT)
    messages = values.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused("messages must be a list with at least one message.", param="messages")
    form = values.get("response_format")
    if form is not None and (not isinstance(form, dict) or form.get("type") != "text"):
        raise Refused('response_format may only be {"type": "text"}.', param="response_format")
    return _ask(
        values,
        most_tokens,
        messages=tuple(_message(message, i) for i, message in enumerate(messages)),
        free=form is not None,
    )


def read_text(body: Any, *, most_tokens: int) -> Ask:
    """The request of /v1/completions, with one text as prompt; see `read_chat`."""
    values = _known(body, _TEXT)
    prompt = values.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise Refused("prompt must be one text.", param="prompt")
    return _ask(values, most_tokens, prompt=_text(prompt, "prompt"), free=True)


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
    return Ask(
        model=model,
        stream=stream,
        usage=stream and usage,
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


def _message(value: Any, number: int) -> dict[str, str]:
    where = f"messages[{number}]"
    if not isinstance(value, dict) or not {"role", "content"} <= value.keys() <= {"role", "content", "name"}:
        raise Refused(f"{where} must have role and content, and nothing else but name.", param=where)
    role = value["role"]
    if not isinstance(role, str) or role not in ROLES:
        raise Refused(f"{where}.role must be one of {', '.join(ROLES)}.", param=f"{where}.role")
    content = value["content"]
    if isinstance(content, list):
        texts = [part.get("text") for part in content if _is_text_part(part)]
        if len(texts) < len(content):
            raise Refused(f"{where}.content may only hold parts of type text.", param=f"{where}.content")
        content = "".join(texts)
    if not isinstance(content, str):
        raise Refused(f"{where}.content must be text.", param=f"{where}.content")
    return {"role": ROLES[role], "content": _text(content, f"{where}.content")}


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _text(value: str, param: str) -> str:
    """The NFC form of a text, as records are kept; half a surrogate pair is no text."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(f"{param} is not valid Unicode.", param=param) from None
    return unicodedata.normalize("NFC", value)


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
    return tuple(_text(text, "stop") for text in texts)


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
