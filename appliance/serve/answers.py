"""A checked request becomes an answer, part by part: text, or the label of a label model."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from appliance.models.task import Task
from appliance.models.trie import LabelTrie
from appliance.serve import prompts
from appliance.serve.engine import Engine, Piece
from appliance.serve.header import Header
from appliance.serve.labels import Labelled, label_trie, pick_label
from appliance.serve.requests import Ask, Refused
from appliance.serve.stats import Stats


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model that answers under `name`. `trie` is there for label models only."""

    name: str
    engine: Engine
    header: Header
    stats: Stats
    task: Task | None = None
    trie: LabelTrie | None = None
    created: int = 0


@dataclass(frozen=True, kw_only=True)
class Part:
    """A Piece, and with the last one of a label answer the label."""

    piece: Piece
    label: Labelled | None = None


async def open_model(name: str, engine: Engine, header: Header, stats: Stats, task: Task | None) -> Served:
    """What serves `name` on a started engine; `task` is what the registry or the file says it is for."""
    labels = task if task is not None and task.kind == "label" else None
    return Served(
        name=name,
        engine=engine,
        header=header,
        stats=stats,
        task=labels,
        trie=None if labels is None else await label_trie(engine, header, labels),
        created=int(time.time()),
    )


async def answer(served: Served, ask: Ask) -> AsyncGenerator[Part, None]:
    """The parts of the answer; the last has the finish reason and the counts.

    Raises:
        Refused: the prompt does not fit. EngineFailed: the engine stopped.
    """
    asked = time.monotonic()
    parts = _label(served, ask) if served.trie is not None and not ask.free else _text(served, ask)
    first = True
    async with aclosing(parts):
        async for part in parts:
            if first:
                served.stats.firsts.append(time.monotonic() - asked)
                first = False
            if part.piece.finish:
                served.stats.prompt_tokens += part.piece.prompt_tokens
                served.stats.completion_tokens += part.piece.completion_tokens
            yield part


async def _text(served: Served, ask: Ask) -> AsyncGenerator[Part, None]:
    if ask.messages:
        prompt = await prompts.chat_tokens(served.engine, served.header, ask.messages)
    else:
        prompt = await prompts.text_tokens(served.engine, served.header, ask.prompt)
    room = _room(served, prompt)
    settings = replace(ask.settings, max_tokens=min(ask.settings.max_tokens, room))
    first = bool(ask.messages)  # some templates leave the space before an answer to the model
    async with aclosing(served.engine.generate(prompt, settings)) as pieces:
        async for piece in pieces:
            text = piece.text.removeprefix(" ") if first else piece.text
            first = first and not piece.text
            yield Part(piece=replace(piece, text=text))


async def _label(served: Served, ask: Ask) -> AsyncGenerator[Part, None]:
    """The label of the last message. What stands before it is left out, as it was in training."""
    if served.trie is None or served.task is None:
        raise Refused("This model has no labels.")
    if ask.messages[-1]["role"] != "user":
        raise Refused("The last message must come from the user.", param="messages")
    question = prompts.as_question(served.task, ask.messages[-1]["content"])
    prompt = await prompts.chat_tokens(served.engine, served.header, [{"role": "user", "content": question}])
    _room(served, prompt, need=max(map(len, served.trie.sequences.values())))
    found = await pick_label(served.engine, served.trie, prompt)
    piece = Piece(text=found.label, finish="stop", prompt_tokens=len(prompt), completion_tokens=found.tokens)
    yield Part(piece=piece, label=found)


def _room(served: Served, prompt: list[int], *, need: int = 1) -> int:
    """How many tokens the answer may have; it needs at least `need`."""
    context = served.engine.context
    if not prompt:
        raise Refused("The prompt is empty.", param="prompt")
    if len(prompt) + need > context:
        raise Refused(
            f"The prompt has {len(prompt)} tokens; this model takes {context - need}. Shorten it.",
            param="messages",
            code="context_length_exceeded",
        )
    return context - len(prompt)
