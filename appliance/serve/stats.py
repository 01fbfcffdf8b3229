"""What the endpoint has done since it started: numbers only, nothing of what was asked."""

from __future__ import annotations

import statistics
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class Stats:
    """Counters of one endpoint. Times are seconds from the end of the request to the first text."""

    requests: int = 0
    errors: int = 0
    active: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    firsts: deque[float] = field(default_factory=lambda: deque(maxlen=512))
    started: float = field(default_factory=time.monotonic)

    def facts(self) -> dict[str, Any]:
        """The numbers worth showing; p50 over the last 512 answers."""
        middle = statistics.median(self.firsts) if self.firsts else None
        return {
            "requests": self.requests,
            "errors": self.errors,
            "active": self.active,
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.completion_tokens,
            "first_token_p50_ms": None if middle is None else round(middle * 1000, 1),
        }
