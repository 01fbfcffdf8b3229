"""Messages to tokens. Special tokens come from the model's template alone, never from a message.

A message may spell "</s>" or "<|assistant|>"; put into the rendered prompt and tokenised with it,
that text would end the turn or speak as the assistant. Such look-alikes are hidden while the
template runs; the stretch of text around them is then tokenised as plain text. Prompts without
any are tokenised in one piece, exactly as in training.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from appliance.core.errors import ModelRejected
from appliance.models.prompt import render
from appliance.models.task import Task
from appliance.models.wording import pattern_of, reword
from appliance.serve.engine import Engine
from appliance.serve.header import Header
from appliance.serve.refusals import Refused

_PRIVATE = [chr(code) for code in range(0xE000, 0xF900)]
_read = lru_cache(maxsize=16)(pattern_of)  # one model at a time is served
Fragment = tuple[str, bool]  # text, and whether special tokens in it are parsed


async def chat_tokens(
    engine: Engine,
    header: Header,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[int]:
    """The prompt of `messages` (`role`, `content`, `tool_calls`) under the model's chat template.

    Raises:
        ModelRejected: the model has no usable template, or its template refuses the messages.
        Refused: the messages leave no character to hide look-alikes with, or a tool or a call of one
            spells special tokens.
    """
    return await _tokens(engine, header, fragments(header, messages, tools))


async def text_tokens(engine: Engine, header: Header, text: str) -> list[int]:
    """The prompt of plain text: BOS if the model wants one, and no special token that `text` spells."""
    first = [header.bos] if header.add_bos and header.bos is not None else []
    return first + await plain_tokens(engine, header, text)


async def plain_tokens(engine: Engine, header: Header, text: str) -> list[int]:
    """The tokens of `text` alone, none of them special."""
    return await _tokens(engine, header, _plain(header, text))


def fragments(
    header: Header, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
) -> list[Fragment]:
    """The prompt of `messages`, cut where special tokens must and must not be parsed."""
    if header.template is None:
        raise ModelRejected("This model has no chat template.", "Use /v1/completions, or another model.")
    pattern = _read(header.specials)
    contents = [message["content"] for message in messages]
    told = [*tools, *(call for message in messages for call in message.get("tool_calls", ()))]
    if pattern is not None and any(pattern.search(text) for text in _texts(told)):
        raise Refused("A tool, or a call of one, spells a special token of this model.", param="tools")
    if pattern is None or not any(pattern.search(content) for content in contents):
        return [(_render(header, messages, tools), True)]
    used = set("".join([*contents, *_texts(told)]))
    mark = next((char for char in _PRIVATE if char not in used), None)
    if mark is None:
        raise Refused("The messages use every private-use character; leave some out.", param="messages")
    hidden: list[str] = []

    def hide(match: re.Match[str]) -> str:
        hidden.append(match[0])
        return f"{mark}{len(hidden) - 1}{mark}"

    masked = [{**message, "content": pattern.sub(hide, message["content"])} for message in messages]
    found: list[Fragment] = []
    for part in _split(pattern, _render(header, masked, tools)):
        if mark in part:
            plain = re.sub(f"{mark}([0-9]+){mark}", lambda match: hidden[int(match[1])], part)
            found += _plain(header, plain)
        elif found and found[-1][1]:
            found[-1] = (found[-1][0] + part, True)
        else:
            found.append((part, True))
    return found


def as_question(task: Task, content: str) -> str:
    """The user message of a label task: `content` put as its question, unless it already is one."""
    start, _, end = task.prompt.partition("{text}")
    text = content.strip()
    inner = text[len(start) : len(text) - len(end)]
    asked = len(text) > len(start) + len(end) and task.question(inner) == text
    return text if asked else task.question(text)


def _texts(value: Any) -> Iterator[str]:
    """Every text inside a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _texts(inner)


def _render(header: Header, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
    return render(
        header.template or "",
        [dict(message) for message in messages],
        bos_token=header.bos_text,
        eos_token=header.eos_text,
        tools=tools or None,
        pad_token=header.pad_text,
    )


def _split(pattern: re.Pattern[str], text: str) -> list[str]:
    """`text` in pieces: each special token that the template wrote, and what stands between."""
    pieces, at = [], 0
    for match in pattern.finditer(text):
        pieces += [text[at : match.start()], match[0]]
        at = match.end()
    return [piece for piece in [*pieces, text[at:]] if piece]


def _plain(header: Header, text: str) -> list[Fragment]:
    """`text` so that no special token comes of it: those that are always parsed are cut in two."""
    pattern = _read(header.forced)
    if pattern is None:
        return [(text, False)]
    cuts = [0, *(match.start() + 1 for match in pattern.finditer(text)), len(text)]
    return [(text[a:b], False) for a, b in pairwise(cuts) if b > a]


async def _tokens(engine: Engine, header: Header, parts: Sequence[Fragment]) -> list[int]:
    found: list[int] = []
    for place, (text, special) in enumerate(parts):
        read = header.defined.union(header.specials) if special else header.defined
        form = reword(
            text,
            normalizer=header.normalizer,
            space=header.space_prefix,
            specials=_read(read) if header.space_prefix else None,
            begins=place == 0,
        )
        found += await engine.tokenize(form, special)
    return found
