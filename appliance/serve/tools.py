"""Calls of tools: offered to the model by its own template, read back from what it writes.

Three ways of writing a call are read: <tool_call>{...}</tool_call> (Hermes, Qwen), a bare JSON object
(Llama 3), and a JSON array after a control token (Mistral). A forced call is held to its JSON schema.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from appliance.core.errors import ModelRejected
from appliance.models.prompt import render
from appliance.serve.messages import Message
from appliance.serve.refusals import Refused

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_PROBE = "cloister-probe"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call that a model made; `arguments` is JSON."""

    name: str
    arguments: str = field(repr=False)
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}")


@lru_cache(maxsize=16)
def takes_tools(template: str, bos: str, eos: str) -> bool:
    """Whether a chat template shows tools to the model."""
    tool = {"type": "function", "function": {"name": _PROBE, "description": "", "parameters": {}}}
    try:
        text = render(
            template, [{"role": "user", "content": "x"}], bos_token=bos, eos_token=eos, tools=[tool]
        )
    except ModelRejected:
        return False
    return _PROBE in text


def forced(tools: Sequence[Message], choice: str) -> dict[str, Any] | None:
    """The JSON schema of a call where `choice` demands one; None where the model may choose."""
    if choice in ("none", "auto"):
        return None
    wanted = [tool["function"] for tool in tools if choice in ("required", tool["function"]["name"])]
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": each["name"]}, "arguments": each["parameters"]},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for each in wanted
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def may_be_call(text: str) -> bool:
    """Whether an answer that begins with `text` may still turn out to be calls."""
    found = text.lstrip()
    return not found or found[0] in "{[" or found.startswith(_OPEN[: len(found)]) or found.startswith(_OPEN)


def no_call(text: str) -> int:
    """How many characters at the start of `text` can no longer be part of a marked call."""
    at = text.find(_OPEN)
    longest = min(len(text), len(_OPEN) - 1)
    begun = next((n for n in range(longest, 0, -1) if text.endswith(_OPEN[:n])), 0)
    return at if at >= 0 else len(text) - begun


def read_calls(text: str, tools: Sequence[Message], *, must: bool) -> tuple[str, tuple[Call, ...]]:
    """The calls in a whole answer and the text beside them; none where it is no call of these tools.

    Raises:
        Refused: `must` was said and there is no whole call.
    """
    said, pieces = _parts(text)
    names = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    calls = [call for piece in pieces for call in _calls(piece, names)]
    if calls:
        return said, tuple(calls)
    if must:
        raise Refused(
            "The model did not make a whole call of the tool; give it more tokens or another model.",
            status=422,
            code="tool_call_failed",
        )
    return text, ()


def _parts(text: str) -> tuple[str, list[str]]:
    if _OPEN not in text:
        return "", [text]
    said, _, rest = text.partition(_OPEN)
    return said.strip(), [piece.partition(_CLOSE)[0] for piece in rest.split(_OPEN)]


def _calls(piece: str, names: dict[str, Any]) -> list[Call]:
    try:
        value = json.loads(piece.strip())
    except (ValueError, RecursionError):
        return []
    found = []
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, dict) or each.get("name") not in names:
            return []
        arguments = each.get("arguments", each.get("parameters"))
        needed = names[each["name"]].get("required", [])
        if not isinstance(arguments, dict) or not all(name in arguments for name in needed):
            return []
        found.append(Call(name=each["name"], arguments=json.dumps(arguments, ensure_ascii=False)))
    return found
