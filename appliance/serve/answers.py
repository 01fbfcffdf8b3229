"""A checked request becomes an answer, part by part: text, calls of tools, or the label of a label model."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from appliance.models.task import Task
from appliance.models.trie import LabelTrie
from appliance.serve import prompts
from appliance.serve.engine import Engine, Piece
from appliance.serve.header import Header
from appliance.serve.labels import Labelled, label_trie, pick_label
from appliance.serve.messages import Message
from appliance.serve.refusals import TOO_LONG, Refused
from appliance.serve.requests import Ask
from appliance.serve.slots import common
from appliance.serve.tools import Call, forced, may_be_call, no_call, read_calls, takes_tools

Spend = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model that answers under `name`. `trie` is there for label models only.

    `prefix` is what all its chat prompts begin with: the template and `system`, the operator's words.
    """

    name: str
    engine: Engine
    header: Header
    task: Task | None = None
    trie: LabelTrie | None = None
    adapter: int | None = None
    system: str = ""
    prefix: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Part:
    """A Piece. The last one of a label answer has the label; of an answer with calls, the calls.

    `extra` is what we say of the answer beyond OpenAI's shape.
    """

    piece: Piece
    label: Labelled | None = None
    calls: tuple[Call, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


async def open_served(
    name: str,
    engine: Engine,
    header: Header,
    task: Task | None,
    *,
    adapter: int | None = None,
    system: str = "",
) -> Served:
    """What serves `name` on a started engine; `task` is what the registry or the file says it is for.

    Raises:
        ModelRejected: its template does not take the system message.
    """
    labels = task if task is not None and task.kind == "label" else None
    served = Served(
        name=name,
        engine=engine,
        header=header,
        task=labels,
        trie=None if labels is None else await label_trie(engine, header, labels),
        adapter=adapter,
        system=system,
    )
    prefix = await _prefix(served)
    await engine.warm(prefix, adapter)
    return replace(served, prefix=prefix)


async def _prefix(served: Served) -> tuple[int, ...]:
    """What the prompts of two different messages have in common at their start."""
    if served.header.template is None:
        return ()
    one, other = [
        await _prompt(served, [{"role": "user", "content": _question(served, text)}]) for text in ("a", "1")
    ]
    return tuple(one[: common(one, other)])


async def answer(
    served: Served, ask: Ask, *, owner: str, spend: Spend = lambda read, written: None
) -> AsyncGenerator[Part, None]:
    """The parts of the answer to the API key `owner`; the last has the finish reason and the counts.

    `spend` hears of tokens, read and written, when they are: who hangs up before the end pays for them.

    Raises:
        Refused: the prompt does not fit, or the model has not what was asked for.
        EngineFailed: the engine stopped.
    """
    if ask.form == "label" and served.trie is None:
        raise Refused("This model has no labels.", param="response_format")
    labelled = served.trie is not None and ask.form in (None, "label") and not ask.tools
    parts = _label(served, ask, owner, spend) if labelled else _text(served, ask, owner, spend)
    async with aclosing(parts):
        async for part in parts:
            yield part


async def _text(served: Served, ask: Ask, owner: str, spend: Spend) -> AsyncGenerator[Part, None]:
    header = served.header
    if ask.tools and not takes_tools(header.template or "", header.bos_text, header.eos_text):
        raise Refused("This model's chat template has no tools.", param="tools", code="no_tools")
    if ask.messages:
        prompt = await _prompt(served, ask.messages, ask.tools)
    else:
        prompt = await prompts.text_tokens(served.engine, header, ask.prompt)
    settings = replace(
        ask.settings,
        max_tokens=min(ask.settings.max_tokens, _room(served, prompt)),
        schema=forced(ask.tools, ask.choice) or ask.schema,
    )
    first = bool(ask.messages)  # some templates leave the space before an answer to the model
    said = served.engine.generate(
        prompt, settings, owner=owner, shared=_shared(served, prompt), adapter=served.adapter
    )
    spend(len(prompt), 0)
    said = _counted(said, spend)
    async with aclosing(said):
        pieces = _with_calls(said, ask) if ask.tools else _parts(said)
        async for part in pieces:
            text = part.piece.text.removeprefix(" ") if first else part.piece.text
            first = first and not part.piece.text
            yield replace(part, piece=replace(part.piece, text=text))


async def _counted(pieces: AsyncGenerator[Piece, None], spend: Spend) -> AsyncGenerator[Piece, None]:
    """The pieces; whatever becomes of them, they have been written."""
    written = 0
    async with aclosing(pieces):
        async for piece in pieces:
            more = piece.completion_tokens - written if piece.finish else piece.tokens
            written += more
            spend(0, max(0, more))
            yield piece


async def _parts(pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Part, None]:
    async for piece in pieces:
        yield Part(piece=piece)


async def _with_calls(pieces: AsyncGenerator[Piece, None], ask: Ask) -> AsyncGenerator[Part, None]:
    """Text as it comes, once it is clear that it is no call; calls when they are whole."""
    held, plain = "", False
    async for piece in pieces:
        held += piece.text
        if not piece.finish:
            plain = plain or not may_be_call(held)
            if plain and (clear := no_call(held)):
                yield Part(piece=replace(piece, text=held[:clear]))
                held = held[clear:]
            continue
        text, calls = read_calls(held, ask.tools, must=ask.choice != "auto")
        if calls:
            piece = replace(piece, finish="tool_calls")
        yield Part(piece=replace(piece, text=text), calls=calls)


async def _label(served: Served, ask: Ask, owner: str, spend: Spend) -> AsyncGenerator[Part, None]:
    """The label of the last message. What stands before it is left out, as it was in training."""
    if served.trie is None or served.task is None:
        raise Refused("This model has no labels.")
    if not ask.messages or ask.messages[-1]["role"] != "user":
        raise Refused("The last message must come from the user.", param="messages")
    question = _question(served, ask.messages[-1]["content"])
    prompt = await _prompt(served, [{"role": "user", "content": question}])
    _room(served, prompt, need=max(map(len, served.trie.sequences.values())))
    spend(len(prompt), 0)
    began = time.monotonic()
    found = await pick_label(
        served.engine,
        served.trie,
        prompt,
        owner=owner,
        shared=_shared(served, prompt),
        adapter=served.adapter,
    )
    spend(0, found.tokens)
    piece = Piece(
        text=found.label,
        finish="stop",
        prompt_tokens=len(prompt),
        completion_tokens=found.tokens,
        seconds=time.monotonic() - began,
    )
    yield Part(piece=piece, label=found)


async def _prompt(served: Served, messages: Sequence[Message], tools: Sequence[Message] = ()) -> list[int]:
    """The tokens of a conversation, the operator's system message before it if it has none.

    A label model was trained on its question alone, so it gets nothing else.
    """
    if served.system and served.trie is None and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": served.system}, *messages]
    return await prompts.chat_tokens(served.engine, served.header, messages, tools)


def _question(served: Served, content: str) -> str:
    return content if served.task is None else prompts.as_question(served.task, content)


def _shared(served: Served, prompt: Sequence[int]) -> int:
    """How many tokens `prompt` has in common with every other prompt; at least one is its own."""
    return min(common(served.prefix, prompt), len(prompt) - 1)


def _room(served: Served, prompt: list[int], *, need: int = 1) -> int:
    """How many tokens the answer may have; it needs at least `need`."""
    context = served.engine.context
    if not prompt:
        raise Refused("The prompt is empty.", param="prompt")
    if len(prompt) + need > context:
        raise Refused(
            f"The prompt has {len(prompt)} tokens; this model takes {context - need}.",
            param="messages",
            code=TOO_LONG,
        )
    return context - len(prompt)
