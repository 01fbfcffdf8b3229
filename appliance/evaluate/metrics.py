"""Figures of one model from counts: accuracy, macro precision, recall and F1, perplexity.

Zero division: a label that was never predicted has precision 0, one that never occurs recall 0, one
with neither F1 0. Macro means average over the labels that occur among the answers or among the
predictions; a label that occurs in neither is left out (the convention of scikit-learn's
`average="macro", zero_division=0`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.core.errors import ConfigWrong

NONE = -1  # the prediction of a row that got no label


@dataclass(frozen=True, kw_only=True)
class LabelMetrics:
    """Shares between 0 and 1; `per_label` tuples run parallel to the task's labels."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    rows: tuple[int, ...]
    per_label_precision: tuple[float, ...]
    per_label_recall: tuple[float, ...]
    per_label_f1: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def confusion(gold: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts [classes, classes + 1]: rows are the answers, the last column is "no label".

    Raises:
        ConfigWrong: no rows, lengths that differ, or a class outside the task.
    """
    if len(gold) != len(predicted) or len(gold) == 0:
        raise ConfigWrong(
            f"{len(gold)} answers and {len(predicted)} predictions cannot be compared.",
            "Evaluate a split that has records.",
        )
    if gold.min() < 0 or gold.max() >= classes or predicted.min() < NONE or predicted.max() >= classes:
        raise ConfigWrong(
            "An answer is not among the task's labels.", "Evaluate with the dataset it was tuned for."
        )
    column = np.where(predicted == NONE, classes, predicted)
    counts = np.bincount(gold * (classes + 1) + column, minlength=classes * (classes + 1))
    return counts.reshape(classes, classes + 1)


def label_metrics(counts: NDArray[np.int64]) -> LabelMetrics:
    """All figures of a confusion table."""
    right, given, true = np.diag(counts), counts[:, :-1].sum(axis=0), counts.sum(axis=1)
    precision, recall, f1 = rates(right, given, true)
    seen = (given + true) > 0
    return LabelMetrics(
        accuracy=float(right.sum() / counts.sum()),
        precision=float(precision[seen].mean()),
        recall=float(recall[seen].mean()),
        f1=float(f1[seen].mean()),
        rows=tuple(int(count) for count in true),
        per_label_precision=tuple(map(float, precision)),
        per_label_recall=tuple(map(float, recall)),
        per_label_f1=tuple(map(float, f1)),
    )


def rates(
    right: NDArray[Any], given: NDArray[Any], true: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1 from counts of right, predicted and true rows (any shape)."""
    return (
        right / np.maximum(given, 1),
        right / np.maximum(true, 1),
        2 * right / np.maximum(given + true, 1),
    )


def macro_f1(right: NDArray[Any], given: NDArray[Any], true: NDArray[Any]) -> NDArray[np.float64]:
    """Macro F1 over the last axis of counts [..., classes]."""
    seen = (given + true) > 0
    f1 = rates(right, given, true)[2]
    return np.asarray((f1 * seen).sum(axis=-1) / np.maximum(seen.sum(axis=-1), 1))


def perplexity(nll: float, tokens: int) -> float:
    """exp(nats per token) from a summed negative log-likelihood.

    Raises:
        ConfigWrong: there are no tokens.
    """
    if tokens <= 0:
        raise ConfigWrong("There are no answer tokens to measure.", "Evaluate a split that has answers.")
    return math.exp(min(nll / tokens, 700.0))
