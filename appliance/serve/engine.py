"""What answers: tokens in, text or the odds of a few tokens out.

Two engines do the same: a supervised llama-server (native.py) and continuous batching inside this
process (inprocess.py). Everything above them, prompts and gateway, sees only this file.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from appliance.core.errors import ConfigWrong, NotFound
from appliance.serve.checked import Loading, unchecked

ENGINES = ("auto", "native", "in-process")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How text is drawn. `temperature` 0 takes the likeliest token; a text in `stop` ends the answer.

    With a JSON `schema` the answer is JSON that fits it, unless `max_tokens` cut it off.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of an answer: `tokens` of it. The last one has `finish` ("stop" or "length") and the counts.

    `cached_tokens` of the prompt were there from before; for `seconds` the engine worked at it, prompt
    included, waiting for a free slot not.
    """

    text: str = field(repr=False)
    tokens: int = 1
    finish: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = field(default=0.0, compare=False)


class Engine(Protocol):
    """One loaded model. `context` is what one request may fill, prompt and answer together.

    Every request has an `owner`, the id of its API key. Computed tokens are reused for the same
    owner, and for everybody up to the `shared` first tokens of the prompt, which the endpoint itself
    wrote; so the time of an answer tells nobody what others asked. A request names one of the
    adapters that the engine was opened with, by its place, or None: the base alone.
    """

    name: str
    context: int
    slots: int

    @property
    def restarts(self) -> int:
        """How often the engine had to be started again."""

    async def start(self) -> None:
        """Load the model and return when it answers.

        Raises:
            EngineFailed: it does not load. ModelChanged: its files are not the registered ones.
        """

    async def health(self) -> bool:
        """Whether a request made now would be answered."""

    def facts(self) -> dict[str, Any]:
        """What the status shows.

        engine, gpu ("" or the devices in use), slots, context, threads, adapters (how many), asleep,
        rss_mb (of the process that holds the model), prompt_tokens and cached_tokens of all requests.
        """

    async def tokenize(self, text: str, special: bool) -> list[int]:
        """Token ids, no BOS added; only `special` text may spell special tokens.

        `text` is in the tokenizer's own form already (models/wording.py).
        """

    async def warm(self, prefix: Sequence[int], adapter: int | None = None) -> None:
        """Compute the endpoint's own start of prompts once, and keep it for all requests.

        Every unused slot has it afterwards, and every other one gets it with the next request whose
        `shared` covers it, also after a restart or a sleep.

        Raises:
            ConfigWrong: `prefix` fills the context, or there is no such adapter. EngineFailed: see generate.
        """

    def generate(
        self,
        prompt: Sequence[int],
        settings: Settings,
        *,
        owner: str,
        shared: int = 0,
        adapter: int | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """The answer, piece by piece. Closing the generator stops the work.

        Raises:
            EngineFailed: the engine stopped before the end.
            ModelChanged: it had to be started again, and its files are not the registered ones any more.
            ConfigWrong: no grammar can be made of the schema, the prompt fills the context, or there is
                no such adapter.
        """

    async def choose(
        self,
        prompt: Sequence[int],
        allowed: Sequence[int],
        *,
        owner: str,
        shared: int = 0,
        adapter: int | None = None,
    ) -> list[float]:
        """Natural log of the odds of each `allowed` token after `prompt`, among themselves.

        Raises:
            EngineFailed, ConfigWrong: as generate.
        """

    async def stop(self) -> None:
        """Unload; open requests fail."""


def native_binary() -> Path | None:
    """The llama-server that was built with the installed llama-cpp-python, if it was."""
    found = importlib.util.find_spec("llama_cpp")
    if found is None or found.origin is None:
        return None
    binary = Path(found.origin).parent / "bin" / "llama-server"
    return binary if os.access(binary, os.X_OK) else None


def pick_engine(
    wanted: str,
    model: Path,
    *,
    folder: Path,
    context: int,
    slots: int,
    threads: int | None = None,
    adapters: Sequence[Path] = (),
    loading: Loading = unchecked,
    memory: int | None = None,
    sleep_after: float | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> Engine:
    """The engine for `model` (not started): "native" where its binary is, else "in-process".

    `folder` takes the engine's log and socket; `context` is per request; `adapters` are LoRA GGUF
    files for this base; each load of these files is within `loading()`; `memory` bytes of data at most
    (native only); after `sleep_after` seconds without a request the model is unloaded until the next one.

    Raises:
        ConfigWrong: `wanted` is no engine. NotFound: native is wanted but was not built.
    """
    binary = pick_binary(wanted)
    threads = threads or default_threads(model)
    if binary is not None:
        from appliance.serve.native import Native

        return Native(
            binary,
            model,
            folder=folder,
            context=context,
            slots=slots,
            threads=threads,
            adapters=adapters,
            loading=loading,
            memory=memory,
            sleep_after=sleep_after,
            log=log,
        )
    from appliance.serve.inprocess import InProcess

    return InProcess(
        model,
        context=context,
        slots=slots,
        threads=threads,
        adapters=adapters,
        loading=loading,
        sleep_after=sleep_after,
    )


def pick_binary(wanted: str) -> Path | None:
    """The llama-server to use where `wanted` is "auto" or "native"; None: llama.cpp in this process.

    Raises:
        ConfigWrong: `wanted` is no engine. NotFound: native is wanted but was not built.
    """
    if wanted not in ENGINES:
        raise ConfigWrong(f"There is no engine called {wanted}.", f"Choose one of {', '.join(ENGINES)}.")
    binary = None if wanted == "in-process" else native_binary()
    if wanted == "native" and binary is None:
        raise NotFound(
            "This installation has no llama-server.", "Run `make install` again, or use --engine in-process."
        )
    return binary


def default_threads(model: Path) -> int:
    """One thread for a model that a core computes faster than two can agree on it."""
    return 1 if model.stat().st_size < 64 << 20 else len(os.sched_getaffinity(0))


def check_request(prompt: Sequence[int], context: int, adapter: int | None, adapters: int) -> None:
    """That a prompt leaves room for an answer, and names one of the engine's adapters or none.

    Raises:
        ConfigWrong: not so.
    """
    if len(prompt) >= context:
        raise ConfigWrong(f"{len(prompt)} tokens fill the context of {context}.", "Shorten the text.")
    if adapter is not None and not 0 <= adapter < adapters:
        raise ConfigWrong("There is no such adapter.", f"This engine has {adapters}.")


class Stops:
    """Cuts an answer at the first of some texts, also when it arrives in parts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts, self._held = tuple(texts), ""

    def feed(self, text: str) -> tuple[str, bool]:
        """What may be shown now that `text` has come, and whether the answer ends here."""
        held = self._held + text
        found = [at for stop in self._texts if (at := held.find(stop)) >= 0]
        if found:
            return held[: min(found)], True
        keep = max((_overlap(held, stop) for stop in self._texts), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep], False

    def rest(self) -> str:
        """What was held back and turned out not to be a stop."""
        return self._held


def _overlap(text: str, stop: str) -> int:
    """The longest end of `text` that is a start of `stop`, in characters."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)


def log_softmax(values: Sequence[float]) -> list[float]:
    """The logarithms of the softmax of `values`; minus infinity stays what it is."""
    top = max(values)
    total = top + math.log(math.fsum(math.exp(value - top) for value in values))
    return [value - total for value in values]
