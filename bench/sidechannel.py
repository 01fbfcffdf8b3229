"""Whether the time of an answer tells one API key what another has asked: AUC of first-token times.

Key A sends a long prompt that nobody has sent before, then key B sends the same or another one of as many
tokens (the same words in another order), in shuffled turns; `--rounds N` of each (200; below 60 only
shows that it runs). The AUC is the chance that a same prompt is answered sooner than another: 0.5 tells
nothing, and the limit is 0.55 (below 0.45 would tell as much). The interval is
DeLong's, 95 % (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988). The control is key A's own
repetition, where the work is spared on purpose: an AUC near 1 shows that the measurement can see a hit.

With the cache of answers (`exact`) both ways are open, that and the reuse of what slots hold; with
`off` only the second. Run it on a machine that does nothing else: noise hides what there is to see.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import endpoints
from bench.endpoints import Server
from bench.streams import crowd
from bench.table import row, show

_LIMIT = 0.55
_WORDS = 150  # of a prompt
_VOCABULARY = (
    *("clinic", "opens", "early", "doctor", "will", "call", "back", "about", "that", "visit", "knee"),
    *("fever", "since", "monday", "please", "move", "booking", "invoice", "again", "thanks", "when"),
)
_SETTINGS = {"temperature": 0.0, "max_tokens": 2}  # what is drawn by chance is not kept
_Times = tuple[list[float], list[float]]


def run(options: Any) -> None:
    """Measure and print."""
    rounds = options.rounds or 200
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as place:
        folder = Path(place)
        file = (
            endpoints.random_model(options.shape, folder) if options.shape else endpoints.demo_model(folder)
        )
        for engine in ("native", "in-process"):
            for cache in ("exact", "off"):
                extra = {"threads": options.threads} if options.threads else {}
                spec = {"engine": engine, "cache": cache, "context": 512, **extra}
                with endpoints.ours(file, folder / "home", **spec) as server:
                    rows += _rows(f"{engine}, cache {cache}", server, folder / "home", rounds)
    show(rows, options.json)


def _rows(case: str, server: Server, home: Path, rounds: int) -> list[dict[str, Any]]:
    other = replace(server, key=endpoints.new_key(home))
    found = times(server, other, rounds, seed=1)
    own = times(server, server, max(10, rounds // 5), seed=2)
    area, low, high = auc(*found)
    control, least, _ = auc(*own)
    medians = [float(np.median(each)) * 1000 for each in (*found, *own)]
    return [
        row("sidechannel", case, "other key, AUC/limit", area, _LIMIT, "AUC"),
        row("sidechannel", case, "other key, low end of 95 %", low, None, "AUC"),
        row("sidechannel", case, "other key, high end of 95 %/limit", high, _LIMIT, "AUC"),
        row("sidechannel", case, "other key, p50 same/other prompt", medians[0], medians[1], "ms"),
        row("sidechannel", case, "control: own repetition, AUC", control, None, "AUC"),
        row("sidechannel", case, "control: low end of 95 %", least, None, "AUC"),
        row("sidechannel", case, "control: p50 same/other prompt", medians[2], medians[3], "ms"),
    ]


def times(first: Server, second: Server, rounds: int, *, seed: int) -> _Times:
    """Seconds to the first text for the key of `second`: of what `first` has just sent, and of others."""
    draw = random.Random(seed)
    same: list[float] = []
    others: list[float] = []
    # One turn of each goes before, unmeasured.
    turns = [True, False, *draw.sample([True, False] * rounds, 2 * rounds)]
    for number, again in enumerate(turns):
        words = draw.choices(_VOCABULARY, k=_WORDS)
        secret, decoy = " ".join(words), " ".join(draw.sample(words, len(words)))
        _first(first, secret)
        taken = _first(second, secret if again else decoy)
        if number > 1:
            (same if again else others).append(taken)
    return same, others


def _first(server: Server, text: str) -> float:
    (answer,) = crowd(server, [[[{"role": "user", "content": text}]]], _SETTINGS).answers
    return answer.first


def auc(same: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """The chance that one of `same` is below one of `others`, equal ones half, and its 95 % interval."""
    below = np.subtract.outer(np.asarray(others, float), np.asarray(same, float)).T
    wins = (below > 0) + 0.5 * (below == 0)
    area = float(wins.mean())
    spread = sum(float(np.var(wins.mean(axis=axis), ddof=1)) / wins.shape[1 - axis] for axis in (0, 1))
    half = 1.959964 * spread**0.5
    return area, max(0.0, area - half), min(1.0, area + half)
