"""What answers: tokens in, text or the odds of a few tokens out.

Two engines do the same: a supervised llama-server (native.py) and continuous batching inside this
process (inprocess.py). Everything above them, prompts and gateway, sees only this file.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from appliance.core.errors import ConfigWrong, NotFound

ENGINES = ("auto", "native", "in-process")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How text is drawn. `temperature` 0 takes the likeliest token; a text in `stop` ends the answer."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of an answer. The last one has `finish` ("stop" or "length") and the token counts."""

    text: str
    finish: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Engine(Protocol):
    """One loaded model. `context` is what one request may fill, prompt and answer together."""

    name: str
    context: int
    slots: int

    @property
    def restarts(self) -> int:
        """How often the engine had to be started again."""

    async def start(self) -> None:
        """Load the model and return when it answers.

        Raises:
            EngineFailed: it does not load.
        """

    async def health(self) -> bool:
        """Whether a request made now would be answered."""

    async def tokenize(self, text: str, special: bool) -> list[int]:
        """Token ids, no BOS added; only `special` text may spell special tokens.

        `text` is in the tokenizer's own form already (models/wording.py).
        """

    def generate(self, prompt: Sequence[int], settings: Settings) -> AsyncGenerator[Piece, None]:
        """The answer, piece by piece. Closing the generator stops the work.

        Raises:
            EngineFailed: the engine stopped before the end.
        """

    async def choose(
        self, prompt: Sequence[int], allowed: Sequence[int], *, again: bool = False
    ) -> list[float]:
        """Natural log of the odds of each `allowed` token after `prompt`, among themselves.

        `again` says that the same request has just asked about the start of this prompt, so what
        was computed then may be used. Without it nothing of another request is used, so that the
        time of an answer tells nobody what others asked.

        Raises:
            EngineFailed: the engine stopped before the end.
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
    memory: int | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> Engine:
    """The engine for `model` (not started): "native" where its binary is, else "in-process".

    `folder` takes the engine's log and socket; `context` is per request, `memory` bytes of data at
    most (native only).

    Raises:
        ConfigWrong: `wanted` is no engine. NotFound: native is wanted but was not built.
    """
    if wanted not in ENGINES:
        raise ConfigWrong(f"There is no engine called {wanted}.", f"Choose one of {', '.join(ENGINES)}.")
    binary = native_binary()
    if wanted == "native" and binary is None:
        raise NotFound(
            "This installation has no llama-server.", "Run `make install` again, or use --engine in-process."
        )
    threads = threads or default_threads(model)
    if binary is not None and wanted != "in-process":
        from appliance.serve.native import Native

        return Native(
            binary,
            model,
            folder=folder,
            context=context,
            slots=slots,
            threads=threads,
            memory=memory,
            log=log,
        )
    from appliance.serve.inprocess import InProcess

    return InProcess(model, context=context, slots=slots, threads=threads)


def default_threads(model: Path) -> int:
    """One thread for a model that a core computes faster than two can agree on it."""
    return 1 if model.stat().st_size < 64 << 20 else len(os.sched_getaffinity(0))


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
