"""Continuous batching on one llama.cpp context: all open requests share every llama_decode.

Plain and synchronous; inprocess.py runs it in a thread. Requests come in and go out between steps.
Only requests with the same adapter share a decode; the adapters take turns.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from appliance.core.errors import ApplianceError
from appliance.models.llama import LlamaFile, library
from appliance.serve.drawing import Drawing
from appliance.serve.engine import Piece, Settings, Stops, log_softmax
from appliance.serve.slots import Slot, choose_slot, stored_prefix

_PROMPT_STEP = 512  # prompt tokens in one step, so that answers in progress are not held up
_CONTROL = 1 << 0 | 1 << 3  # LLAMA_TOKEN_ATTR_UNKNOWN, _CONTROL


@dataclass(kw_only=True, eq=False)
class Request:
    """One open request: text (`settings`), the odds of the `allowed` tokens, or neither: a public prefix.

    `say` hears every Piece, or the list of log odds, or None for a prefix that is kept, or the error
    that ended it; `over` may be set from outside to give it up. `owner`, `shared` and `adapter` are
    those of Engine. `done` of its tokens are in the memory of sequence `slot`; `cached` were before.
    """

    tokens: list[int]
    say: Callable[[Any], None]
    owner: str | None = None
    shared: int = 0
    adapter: int | None = None
    settings: Settings | None = None
    allowed: Sequence[int] = ()
    over: bool = False
    prompt: int = 0
    done: int = 0
    cached: int = 0
    slot: int = -1
    began: float = 0.0
    drawing: Drawing | None = None
    stops: Stops = field(default_factory=lambda: Stops(()))
    decoder: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))


class Batch:
    """The requests in progress on `file`, each with a sequence of at most `context` tokens.

    The first `slots` sequences of the file are for them, the others each keep a public prefix of at
    most `prefix` tokens.
    """

    def __init__(
        self, file: LlamaFile, *, context: int, slots: int, prefix: int, adapters: Sequence[Path] = ()
    ) -> None:
        self._file, self._context, self._prefix, self._adapters = file, context, prefix, adapters
        self._memory = library().llama_get_memory(file.ctx)
        self._room = min(_PROMPT_STEP, file.context)
        self._slots = [Slot() for _ in range(slots)]
        self._free = set(range(slots))
        self._kept: dict[tuple[int | None, tuple[int, ...]], int] = {}  # public prefix -> sequence
        self._spare = list(range(slots, file.sequences))
        self._used = 0
        self._adapter: int | None = None
        self.open: list[Request] = []
        self.prompt_tokens = self.cached_tokens = 0

    def admit(self, waiting: list[Request]) -> None:
        """Move requests from `waiting` to free sequences, oldest first."""
        while waiting and self._free:
            request = waiting.pop(0)
            if request.over:
                continue
            request.prompt = len(request.tokens)
            try:
                if request.settings is not None:
                    request.stops = Stops(request.settings.stop)
                    request.drawing = Drawing(self._file, request.settings)
            except ApplianceError as problem:
                request.say(problem)
                continue
            request.began = time.monotonic()
            self._settle(request)
            self.open.append(request)

    def step(self) -> None:
        """One llama_decode for open requests with one adapter, then what follows from it for each."""
        self._release()
        if not self.open:
            return
        try:
            group = self._turn()
        except ApplianceError as problem:
            self.fail(problem)
            return
        rows: list[tuple[int, int, int, bool]] = []  # token, position, sequence, logits wanted
        ready: list[tuple[Request, int]] = []
        room = self._room
        for request in sorted(group, key=lambda request: len(request.tokens) - request.done):
            last = len(request.tokens) - 1
            end = min(last + 1, request.done + room)
            rows += [(request.tokens[at], at, request.slot, at == last) for at in range(request.done, end)]
            room -= end - request.done
            self._slots[request.slot].tokens += request.tokens[request.done : end]
            request.done = end
            if end > last:
                ready.append((request, len(rows) - 1))
        tokens, positions, owners, wanted = (np.array(column, np.int32) for column in zip(*rows, strict=True))
        try:
            self._file.run(tokens, positions, owners, wanted.astype(np.int8))
        except ApplianceError as problem:
            self.fail(problem)
            return
        for request, row in ready:
            if request.settings is not None:
                self._draw(request, request.settings, row)
            elif request.allowed:
                self._compare(request, row)
            else:
                self._keep(request)
        self._release()

    def fail(self, problem: ApplianceError) -> None:
        """End every open request with `problem`."""
        for request in self.open:
            request.say(problem)
            request.over = True
            self._cut(request.slot, 0)
        self._release()

    def _settle(self, request: Request) -> None:
        """Give a request its sequence, with as much of its prompt there as it may reuse."""
        saved = [prefix for adapter, prefix in self._kept if adapter == request.adapter]
        stored = stored_prefix(saved, request.tokens, request.shared)
        choice = choose_slot(
            self._slots,
            self._free,
            prompt=request.tokens,
            owner=request.owner,
            adapter=request.adapter,
            shared=request.shared,
            stored=len(stored),
        )
        request.slot, keep = choice.slot, choice.keep
        if len(stored) > keep:
            self._cut(choice.slot, 0)
            source = self._kept[request.adapter, stored]
            library().llama_memory_seq_cp(self._memory, source, choice.slot, -1, -1)
            keep = len(stored)
            self._slots[choice.slot].tokens = list(stored)
        # The last token is always computed: only then are its logits there.
        request.done = request.cached = self._cut(choice.slot, min(keep, request.prompt - 1))
        self._used += 1
        slot = self._slots[choice.slot]
        slot.owner, slot.adapter, slot.used = request.owner, request.adapter, self._used
        slot.public = min(request.shared, request.prompt)
        self._free.remove(choice.slot)
        if request.owner is not None:
            self.prompt_tokens += request.prompt
            self.cached_tokens += request.cached

    def _turn(self) -> list[Request]:
        """The requests of the adapter whose turn it is; the file computes with it."""
        waiting = {request.adapter for request in self.open}
        order = [None, *range(len(self._adapters))]
        after = order.index(self._adapter) + 1
        adapter = next(one for one in order[after:] + order[:after] if one in waiting)
        if adapter != self._adapter:
            self._file.use_adapters({} if adapter is None else {self._adapters[adapter]: 1.0})
            self._adapter = adapter
        return [request for request in self.open if request.adapter == adapter]

    def _release(self) -> None:
        for request in [request for request in self.open if request.over]:
            self.open.remove(request)
            self._free.add(request.slot)
            if request.drawing is not None:
                request.drawing.close()

    def _cut(self, slot: int, count: int) -> int:
        """Drop all but the first `count` tokens of a sequence's memory; how many were kept."""
        lib = library()
        if not lib.llama_memory_seq_rm(self._memory, slot, count, -1):  # some kinds drop all or nothing
            lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
            count = 0
        self._slots[slot].tokens = self._slots[slot].tokens[:count]
        return count

    def _keep(self, request: Request) -> None:
        """Keep what a sequence holds as a public prefix; the oldest makes room."""
        key = (request.adapter, tuple(request.tokens))
        if key not in self._kept and len(request.tokens) <= self._prefix:
            place = self._spare.pop() if self._spare else self._kept.pop(next(iter(self._kept)))
            library().llama_memory_seq_rm(self._memory, place, -1, -1)
            library().llama_memory_seq_cp(self._memory, request.slot, place, -1, -1)
            self._kept[key] = place
        request.say(None)
        request.over = True

    def _compare(self, request: Request, row: int) -> None:
        logits = self._file.logits_of(row)
        request.say(log_softmax(logits[list(request.allowed)].astype(float).tolist()))
        request.over = True

    def _draw(self, request: Request, settings: Settings, row: int) -> None:
        """Draw the next token of an answer and say what it adds."""
        assert request.drawing is not None  # noqa: S101 - a request with settings has one
        try:
            token = request.drawing.next(row)
        except ApplianceError as problem:
            request.say(problem)
            request.over = True
            return
        request.tokens.append(token)
        count, ended = len(request.tokens) - request.prompt, self._file.is_end(token)
        full = count >= settings.max_tokens or len(request.tokens) >= self._context
        text, cut = request.stops.feed("" if ended else request.decoder.decode(_shown(self._file, token)))
        if ended or cut or full:
            request.say(
                Piece(
                    text=text if cut else text + request.stops.rest(),
                    finish="stop" if ended or cut else "length",
                    prompt_tokens=request.prompt,
                    cached_tokens=request.cached,
                    completion_tokens=count,
                    seconds=time.monotonic() - request.began,
                )
            )
            request.over = True
        elif text:
            request.say(Piece(text=text))


def _shown(file: LlamaFile, token: int) -> bytes:
    """The bytes of a token in an answer: none for a control token."""
    control = library().llama_vocab_get_attr(file.vocab, token) & _CONTROL
    return b"" if control else file.piece(token)
