"""The messages and tools of a chat request, checked."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from appliance.serve.refusals import Refused
from appliance.serve.schemas import check_schema

Message = dict[str, Any]
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_FIELDS = {"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "audio", "annotations"}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MOST_TOOLS, _MOST_MESSAGES = 32, 1000
_COMBINING = "".join(chr(code) for code in range(0x300, 0x1F000) if unicodedata.combining(chr(code)))
_MARKS = re.compile(f"[{_COMBINING}]{{31}}")


def read_messages(value: Any) -> tuple[Message, ...]:
    """`messages` of the body: role and content, NFC; calls of tools and what they gave.

    Raises:
        Refused: anything missing, malformed or not text.
    """
    if not isinstance(value, list) or not value:
        raise Refused("messages must be a list with at least one message.", param="messages")
    if len(value) > _MOST_MESSAGES:
        raise Refused(f"messages may hold {_MOST_MESSAGES} messages at most.", param="messages")
    return tuple(_message(message, f"messages[{i}]") for i, message in enumerate(value))


def read_tools(value: Any, choice: Any) -> tuple[tuple[Message, ...], str]:
    """`tools` and `tool_choice`: the functions, and "none", "auto", "required" or the one to call.

    Raises:
        Refused: malformed, more than 32, or a choice that is none of them.
    """
    if value is not None and (not isinstance(value, list) or len(value) > _MOST_TOOLS):
        raise Refused(f"tools must be a list of at most {_MOST_TOOLS}.", param="tools")
    tools = tuple(_tool(tool, f"tools[{i}]") for i, tool in enumerate(value or ()))
    names = [tool["function"]["name"] for tool in tools]
    if len(set(names)) < len(names):
        raise Refused("Two tools have the same name.", param="tools")
    if isinstance(choice, dict):
        function = choice.get("function")
        choice = (
            function.get("name") if choice.get("type") == "function" and isinstance(function, dict) else 0
        )
        if choice not in names:
            raise Refused("tool_choice must name one of the tools.", param="tool_choice")
        return tools, str(choice)
    if choice not in (None, "none", "auto", "required"):
        raise Refused("tool_choice must be none, auto, required or a function.", param="tool_choice")
    if choice == "required" and not tools:
        raise Refused("tool_choice is required, but there are no tools.", param="tool_choice")
    # A tool that is called like a mode could not be told from it.
    if {"none", "auto", "required"} & set(names):
        raise Refused("No tool may be called none, auto or required.", param="tools")
    return tools, choice or "auto"


def clean(value: str, param: str) -> str:
    """The NFC form of a text, as records are kept; half a surrogate pair is no text.

    Sorting marks that stand one behind the other takes time by their square, so no more than 30 may:
    the limit of the Stream-Safe Text Format, Unicode Standard Annex 15.

    Raises:
        Refused: it is not valid Unicode, or piles up marks.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(f"{param} is not valid Unicode.", param=param) from None
    if not value.isascii() and _MARKS.search(value):
        raise Refused(f"{param} has more than 30 combining marks in a row.", param=param)
    return unicodedata.normalize("NFC", value)


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict) or not value.keys() <= _FIELDS or "role" not in value:
        raise Refused(f"{where} must have role and content, and nothing we do not know.", param=where)
    role = value["role"]
    if not isinstance(role, str) or role not in ROLES:
        raise Refused(f"{where}.role must be one of {', '.join(ROLES)}.", param=f"{where}.role")
    if any(value.get(name) for name in ("refusal", "audio", "annotations")):
        raise Refused(f"{where} may only hold text.", param=where)
    if any(not isinstance(value.get(name, ""), str | None) for name in ("name", "tool_call_id")):
        raise Refused(f"{where}: name and tool_call_id are texts.", param=where)
    calls = value.get("tool_calls")
    if calls is not None and role != "assistant":
        raise Refused(f"{where}: only the assistant calls tools.", param=f"{where}.tool_calls")
    content = value.get("content")
    if content is None and calls:
        content = ""
    found: Message = {"role": ROLES[role], "content": _content(content, f"{where}.content")}
    if calls:
        found["tool_calls"] = _calls(calls, f"{where}.tool_calls")
    return found


def _content(content: Any, where: str) -> str:
    if isinstance(content, list):
        texts = [part.get("text") for part in content if _is_text(part)]
        if len(texts) < len(content):
            raise Refused(f"{where} may only hold parts of type text.", param=where)
        content = "".join(texts)
    if not isinstance(content, str):
        raise Refused(f"{where} must be text.", param=where)
    return clean(content, where)


def _is_text(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and part.keys() == {"type", "text"}
        and part["type"] == "text"
        and isinstance(part["text"], str)
    )


def _calls(value: Any, where: str) -> list[Message]:
    """Earlier calls, their arguments as objects, which is how templates write them."""
    try:
        found = []
        for call in value:
            function = call["function"]
            arguments = json.loads(function["arguments"])
            clean(json.dumps(arguments, ensure_ascii=False), where)
            if not _NAME.fullmatch(function["name"]) or not isinstance(arguments, dict):
                raise ValueError
            found.append({"type": "function", "function": {"name": function["name"], "arguments": arguments}})
        return found
    except (ValueError, TypeError, LookupError, RecursionError):
        raise Refused(f"{where} must be calls of functions with JSON arguments.", param=where) from None


def _tool(value: Any, where: str) -> Message:
    function = value.get("function") if isinstance(value, dict) and value.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Refused(f"{where} must be a function with a name.", param=where)
    if not _NAME.fullmatch(function["name"]):
        raise Refused(f"{where}.function.name has 1 to 64 letters, digits, _ or -.", param=where)
    described = function.get("description") or ""
    if not isinstance(described, str):
        raise Refused(f"{where}.function.description must be text.", param=where)
    schema = check_schema(function.get("parameters") or {"type": "object"}, f"{where}.function.parameters")
    return {
        "type": "function",
        "function": {"name": function["name"], "description": clean(described, where), "parameters": schema},
    }
