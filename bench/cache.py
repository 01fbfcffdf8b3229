"""The answer cache: milliseconds of a hit, false hits of the near match, hits on paraphrases.

A hit is measured as the gateway makes it: identity of a checked request (its SHA-256, with `near` its
meaning too), look-up among 10,000 kept answers, and the whole body in OpenAI's shape. The pairs are made
by bench/near_pairs.py. The peer of the near match is what a semantic cache does: the cosine of the same
character runs at 0.8, without a look at the words.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bench.near_pairs import different, same
from bench.table import row, show

_KEPT = 10_000
_PEER = 0.8
_SEEDS = 4


def run(options: Any) -> None:
    """Measure and print."""
    rounds = options.rounds or 2000
    show([*_times(rounds), *_pairs()], options.json)


def _times(rounds: int) -> list[dict[str, Any]]:
    from appliance.serve.cache import Answer, Cache, asked
    from appliance.serve.engine import Settings
    from appliance.serve.requests import Ask
    from appliance.serve.shapes import Shape

    answer = Answer(text="Two tablets a day. " * 40, finish="stop", prompt_tokens=400, completion_tokens=200)
    system = {"role": "system", "content": "You answer for the clinic. " * 40}
    ask = Ask(model="m", settings=Settings(max_tokens=256), stream=False, usage=False)
    who = {"scope": "key", "model": "m", "sha256": "0" * 64, "documents": "policies@3"}

    def of(text: str) -> Ask:
        return replace(ask, messages=(system, {"role": "user", "content": text}))

    rows = []
    for name, near, head in (("exact", False, ""), ("near", True, "Hello, ")):
        cache = Cache(near=near, most_bytes=1 << 30)
        for number in range(_KEPT):
            found = asked(of(f"What is the usual dose of drug {number} for adults?"), **who, near=near)
            cache.put(found, answer)  # type: ignore[arg-type]
        taken = []
        for number in range(rounds):
            text = f"{head}What is the usual dose of drug {number * 7 % _KEPT} for adults?"
            began = time.perf_counter()
            hit = cache.get(asked(of(text), **who, near=near))  # type: ignore[arg-type]
            body = Shape(model="m", chat=True).whole(hit.answer.parts())  # type: ignore[union-attr]
            taken.append(time.perf_counter() - began)
            assert body["usage"]["total_tokens"] == 600  # noqa: S101 - a miss would be no measurement
        quantiles = statistics.quantiles(taken, n=20)
        rows.append(row("cache", f"{name} hit among {_KEPT}", "p50", quantiles[9] * 1000, None, "ms"))
        rows.append(row("cache", f"{name} hit among {_KEPT}", "p95", quantiles[18] * 1000, None, "ms"))
    return rows


def _pairs() -> list[dict[str, Any]]:
    from appliance.serve.near import NearIndex, Question

    def ours(one: str, other: str) -> bool:
        index = NearIndex()
        index.add(Question(frame="", text=one), "key")
        return index.find(Question(frame="", text=other)) is not None

    def peer(one: str, other: str) -> bool:
        return float(Question(frame="", text=one).vector @ Question(frame="", text=other).vector) >= _PEER

    wrong = list(dict.fromkeys(pair for seed in range(_SEEDS) for pair in different(seed)))
    right = list(dict.fromkeys(pair for seed in range(_SEEDS) for pair in same(seed)))

    def hits(of: list[tuple[str, str, str]], kind: str | None, look: Callable[[str, str], bool]) -> int:
        return sum(look(one, other) for found, one, other in of if kind in (None, found))

    rows = [
        row("cache", f"{len(wrong)} pairs not the same", "false hits", hits(wrong, None, ours),
            hits(wrong, None, peer), "pairs"),
    ]  # fmt: skip
    for kind, count in (("all", len(right)), *Counter(kind for kind, _, _ in right).items()):
        wanted = None if kind == "all" else kind
        share, other = (hits(right, wanted, look) / count for look in (ours, peer))
        rows.append(row("cache", f"{count} paraphrases: {kind}", "share of hits", share, other, "share"))
    return rows
