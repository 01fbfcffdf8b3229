"""What the endpoint has done since it started: numbers only, nothing of what was asked."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_KEPT, _WINDOW = 512, 60.0  # first-token times kept; seconds that a rate looks back


@dataclass(kw_only=True)
class Stats:
    """Counters of one endpoint. Times are seconds from the end of the request to the first text.

    `engine_seconds` are those that engines worked at whole answers, each counted by itself.
    """

    clock: Callable[[], float] = time.monotonic
    requests: int = 0
    errors: int = 0
    active: int = 0
    queued: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    engine_seconds: float = 0.0
    by_model: Counter[str] = field(default_factory=Counter)
    by_route: Counter[tuple[str, str]] = field(default_factory=Counter)
    firsts: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    started: float = 0.0
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.started = self.clock()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """One request, open for as long as the block lasts."""
        self.requests += 1
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1

    @contextmanager
    def waiting(self) -> Iterator[Callable[[], None]]:
        """A request that waits for its first text; what it yields says that the text has come."""
        began, over = self.clock(), False

        def first() -> None:
            nonlocal over
            if not over:
                self.queued -= 1
                self.firsts.append(self.clock() - began)
            over = True

        self.queued += 1
        try:
            yield first
        finally:
            if not over:
                self.queued -= 1

    def answered(self, model: str, prompt_tokens: int, completion_tokens: int, seconds: float = 0.0) -> None:
        """Count one whole answer of `model`, at which its engine worked for `seconds`."""
        self.by_model[model] += 1
        self.engine_seconds += seconds
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self._recent.append((self.clock(), completion_tokens))

    def rate(self) -> float:
        """Tokens a second over the last minute, or over the life of a younger endpoint."""
        now = self.clock()
        while self._recent and self._recent[0][0] < now - _WINDOW:
            self._recent.popleft()
        span = min(_WINDOW, max(now - self.started, 1.0))
        return sum(count for _, count in self._recent) / span

    def first_token(self, share: float) -> float | None:
        """The time to the first text that `share` of the last 512 answers stayed below, in seconds."""
        times = sorted(self.firsts)
        return times[min(len(times) - 1, int(share * len(times)))] if times else None

    def facts(self) -> dict[str, Any]:
        """The numbers worth showing."""
        return {
            "requests": self.requests,
            "errors": self.errors,
            "active": self.active,
            "queued": self.queued,
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.completion_tokens,
            "engine_seconds": round(self.engine_seconds, 3),
            "tokens_per_second": round(self.rate(), 1),
            "first_token_p50_ms": _ms(self.first_token(0.5)),
            "first_token_p95_ms": _ms(self.first_token(0.95)),
            "models": dict(self.by_model),
            "routes": {f"{route} -> {model}": count for (route, model), count in self.by_route.items()},
        }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
