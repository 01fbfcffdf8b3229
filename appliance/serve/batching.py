"""Continuous batching on one llama.cpp context: all open requests share every llama_decode.

Plain and synchronous; inprocess.py runs it in a thread. Requests come in and go out between steps.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from appliance.core.errors import ApplianceError
from appliance.models.llama import LlamaFile, library
from appliance.serve.engine import Piece, Settings, Stops, log_softmax

_PROMPT_STEP = 512  # prompt tokens in one step, so that answers in progress are not held up
_CONTROL = 1 << 0 | 1 << 3  # LLAMA_TOKEN_ATTR_UNKNOWN, _CONTROL
_RANDOM_SEED = 0xFFFFFFFF  # llama.cpp draws one


@dataclass(kw_only=True, eq=False)
class Request:
    """One open request: text (`settings`) or the odds of the `allowed` tokens.

    `say` hears every Piece, or the list of log odds, or the error that ended it; `over` may be set
    from outside to give it up. `done` of its tokens are in the memory of sequence `slot`.
    """

    tokens: list[int]
    say: Callable[[Any], None]
    settings: Settings | None = None
    allowed: Sequence[int] = ()
    again: bool = False
    over: bool = False
    prompt: int = 0
    done: int = 0
    slot: int = -1
    sampler: Any = None
    stops: Stops = field(default_factory=lambda: Stops(()))
    decoder: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))


class Batch:
    """The requests in progress on `file`, each with a sequence of at most `context` tokens."""

    def __init__(self, file: LlamaFile, *, context: int) -> None:
        self._file, self._context = file, context
        self._memory = library().llama_get_memory(file.ctx)
        self._room = min(_PROMPT_STEP, file.context)
        self._held: list[list[int]] = [[] for _ in range(file.sequences)]  # what each sequence holds
        self._free = list(range(file.sequences))  # longest unused first
        self.open: list[Request] = []

    def admit(self, waiting: list[Request]) -> None:
        """Move requests from `waiting` to free sequences, oldest first."""
        while waiting and self._free:
            request = waiting.pop(0)
            if request.over:
                continue
            request.slot, common = self._free[0], 0
            if request.again:
                lengths = {slot: _common(self._held[slot], request.tokens) for slot in self._free}
                request.slot = max(self._free, key=lambda slot: lengths[slot])
                common = lengths[request.slot]
            self._free.remove(request.slot)
            request.prompt = len(request.tokens)
            # The last token is always computed: only then are its logits there.
            request.done = self._keep(request.slot, min(common, request.prompt - 1))
            if request.settings is not None:
                request.stops = Stops(request.settings.stop)
                request.sampler = _sampler(request.settings)
            self.open.append(request)

    def step(self) -> None:
        """One llama_decode for all open requests, then what follows from it for each."""
        self._release()
        if not self.open:
            return
        rows: list[tuple[int, int, int, bool]] = []  # token, position, sequence, logits wanted
        ready: list[tuple[Request, int]] = []
        room = self._room
        for request in sorted(self.open, key=lambda request: len(request.tokens) - request.done):
            last = len(request.tokens) - 1
            end = min(last + 1, request.done + room)
            rows += [(request.tokens[at], at, request.slot, at == last) for at in range(request.done, end)]
            room -= end - request.done
            self._held[request.slot] += request.tokens[request.done : end]
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
            if request.settings is None:
                self._compare(request, row)
            else:
                self._draw(request, request.settings, row)
        self._release()

    def fail(self, problem: ApplianceError) -> None:
        """End every open request with `problem`."""
        for request in self.open:
            request.say(problem)
            request.over = True
            self._keep(request.slot, 0)
        self._release()

    def _release(self) -> None:
        for request in [request for request in self.open if request.over]:
            self.open.remove(request)
            self._free.append(request.slot)
            if request.sampler is not None:
                library().llama_sampler_free(request.sampler)

    def _keep(self, slot: int, count: int) -> int:
        """Drop all but the first `count` tokens of a sequence's memory; how many were kept."""
        lib = library()
        if not lib.llama_memory_seq_rm(self._memory, slot, count, -1):  # some kinds drop all or nothing
            lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
            count = 0
        self._held[slot] = self._held[slot][:count]
        return count

    def _compare(self, request: Request, row: int) -> None:
        logits = np.ctypeslib.as_array(
            library().llama_get_logits_ith(self._file.ctx, row), (self._file.n_vocab,)
        )
        request.say(log_softmax(logits[list(request.allowed)].astype(float).tolist()))
        request.over = True

    def _draw(self, request: Request, settings: Settings, row: int) -> None:
        """Draw the next token of an answer and say what it adds."""
        token = library().llama_sampler_sample(request.sampler, self._file.ctx, row)
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
                    completion_tokens=count,
                )
            )
            request.over = True
        elif text:
            request.say(Piece(text=text))


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences share from the start."""
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def _shown(file: LlamaFile, token: int) -> bytes:
    """The bytes of a token in an answer: none for a control token."""
    control = library().llama_vocab_get_attr(file.vocab, token) & _CONTROL
    return b"" if control else file.piece(token)


def _sampler(settings: Settings) -> Any:
    """The same chain as llama-server's with samplers top_p and temperature."""
    lib = library()
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    seed = _RANDOM_SEED if settings.seed is None else settings.seed
    for part in (
        lib.llama_sampler_init_top_p(settings.top_p, 0),
        lib.llama_sampler_init_temp_ext(settings.temperature, 0.0, 1.0),
        lib.llama_sampler_init_dist(seed),
    ):
        lib.llama_sampler_chain_add(chain, part)
    return chain
