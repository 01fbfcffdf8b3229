"""What each model answered, record by record: what a router between two models learns from.

home.reports/<job>-rows.json holds ids of records and numbers, no text: {"format": 1, "job", "created",
"dataset": "name@version", "sha256", "split", "task", "models": {name: {"sha256", "ids", "right" (0 or 1;
in a task without labels whether greedy decoding writes exactly the answer), "confidence" (label tasks,
else null), "nll" (nats of the whole answer), "seconds" (one question and its answer, one stream)}}}.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.evaluate.report import Measured

SUFFIX = "-rows.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """One model on the records of one split, as the newest evaluation found it."""

    model: str
    sha256: str
    dataset: str
    split: str
    task: str
    job: str
    ids: tuple[str, ...]
    right: NDArray[np.bool_]
    confidence: NDArray[np.float64] | None
    nll: NDArray[np.float64]
    seconds: float


def content(report: dict[str, Any], measured: Sequence[Measured]) -> dict[str, Any]:
    """The file's content."""
    data = report["dataset"]
    return {
        "format": 1,
        "job": report["job"],
        "created": report["created"],
        "dataset": data["title"],
        "sha256": data["sha256"],
        "split": data["split"],
        "task": data["task"],
        "models": {one.model.name: _of(one) for one in measured},
    }


def _of(one: Measured) -> dict[str, Any]:
    scores = one.scores
    right = scores.right if scores.labels else scores.free
    fitting = max(int(scores.fits.sum()), 1)
    seconds = one.prompt_tokens / one.speed.prompt + float(scores.tokens.sum()) / one.speed.decode
    return {
        "sha256": one.model.sha256,
        "ids": list(scores.ids),
        "right": right.astype(int).tolist(),
        "confidence": scores.confidence.round(6).tolist() if scores.labels else None,
        "nll": scores.nll.round(4).tolist(),
        "seconds": seconds / fitting,
    }


def read(home: Home, model: str) -> list[Answers]:
    """All evaluations of `model` that kept their rows, newest first; unreadable files are left out."""
    found = []
    for path in home.reports.glob(f"*{SUFFIX}"):
        try:
            value = json.loads(read_bytes(path))
            one = value["models"].get(model)
            if one is not None:
                found.append((value["created"], _answers(model, value, one)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return [answers for _, answers in sorted(found, key=lambda pair: pair[0], reverse=True)]


def _answers(model: str, value: dict[str, Any], one: dict[str, Any]) -> Answers:
    confidence = one["confidence"]
    return Answers(
        model=model,
        sha256=one["sha256"],
        dataset=value["dataset"],
        split=value["split"],
        task=value["task"],
        job=value["job"],
        ids=tuple(one["ids"]),
        right=np.array(one["right"], bool),
        confidence=None if confidence is None else np.array(confidence, np.float64),
        nll=np.array(one["nll"], np.float64),
        seconds=float(one["seconds"]),
    )
