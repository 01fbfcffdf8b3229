"""The report of one evaluation as data: what was measured on what, by whom it may be believed, the
verdicts. Pure: scores and facts in, a JSON-able dict out. No text of a record is ever in it.

Fields of a model: `ci` is [low, high] of `accuracy`, and likewise `free_ci`, `macro_f1_ci`,
`perplexity_ci`. Shares are between 0 and 1, sizes in bytes, speeds in tokens a second; None where
a figure does not exist (free answers have no accuracy, running text not even answers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.core.errors import ProofFailed
from appliance.data.records import Record
from appliance.evaluate.backends import Speed
from appliance.evaluate.compare import (
    between,
    macro_f1_interval,
    mcnemar,
    paired_perplexity,
    paired_share,
    perplexity_interval,
    relative_change,
    share_interval,
)
from appliance.evaluate.gate import Gate, Rule, both, judge_gain, judge_quantised
from appliance.evaluate.metrics import confusion, label_metrics
from appliance.evaluate.score import Scores
from appliance.models.registry import Model
from appliance.models.task import Task

_GROUP_UNITS = 10  # smaller groups are neither shown (they point at people) nor judged
_GROUP_VALUES = 10  # a fact with more values than this is no group (a date, a name)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One model's scores. `chain` is its lineage, itself first; `role` is "base", "model" or
    "reference" (scored only because another model is judged by it); `f16` names what a quantised
    file is judged by; `prompt_tokens` are those of all rows that fit.
    """

    chain: tuple[Model, ...]
    task: Task
    scores: Scores
    speed: Speed
    seconds: float
    role: str
    f16: str | None = None
    prompt_tokens: int = 0

    @property
    def model(self) -> Model:
        """The registry entry itself."""
        return self.chain[0]

    @property
    def tuned(self) -> bool:
        """Whether records of this site went into it."""
        return any(step.trained for step in self.chain)


def groups_of(
    records: Sequence[Record], clusters: NDArray[np.int64]
) -> dict[tuple[str, str], NDArray[np.bool_]]:
    """Masks over the records by fact and value, for facts with few values and groups of enough units."""
    found: dict[tuple[str, str], NDArray[np.bool_]] = {}
    for fact in sorted({name for record in records for name in record.facts}):
        values = np.array([record.facts.get(fact, "") for record in records], dtype=object)
        names = sorted({str(value) for value in values if isinstance(value, str) and value})
        if not 2 <= len(names) <= _GROUP_VALUES:
            continue
        for name in names:
            mask = np.asarray(values == name)
            if len(np.unique(clusters[mask])) >= _GROUP_UNITS:
                found[fact, name] = mask
    return found


def model_row(
    measured: Measured,
    base: Measured | None,
    clusters: NDArray[np.int64],
    groups: Mapping[tuple[str, str], NDArray[np.bool_]],
    gate: Gate | None,
    rule: Rule,
) -> dict[str, Any]:
    """Everything about one model, ready for JSON."""
    model, scores, level = measured.model, measured.scores, rule.level
    row: dict[str, Any] = {
        "name": model.name,
        "kind": model.kind,
        "type": model.facts.get("type"),
        "role": measured.role,
        "parent": model.parent,
        "engine": "llama.cpp" if model.kind == "gguf" else "transformers, float32",
        # An adapter runs on its base, so both are what it takes.
        "size": model.size + sum(step.size for step in measured.chain[1:] if model.kind == "adapter"),
        "rows": len(scores.ids),
        "not_fitting": int((~scores.fits).sum()),
        "cut": int(scores.cut.sum()),
        "tokens": int(scores.tokens.sum()),
        "tokens_per_second": measured.speed.decode,
        "prompt_tokens_per_second": measured.speed.prompt,
        "threads": measured.speed.threads,
        "seconds": measured.seconds,
        "privacy": _privacy(measured),
        "gate": gate.as_dict() if gate else None,
        "passed": gate.passed if gate else None,
    }
    row |= {"free_accuracy": None, "free_ci": None}
    if measured.task.kind != "text":  # nobody expects a whole text to be guessed
        free = share_interval(scores.free, clusters, level)
        row |= {"free_accuracy": free.value, "free_ci": [free.low, free.high]}
    spread = perplexity_interval(scores.nll, scores.tokens, clusters, level)
    row |= {"perplexity": spread.value, "perplexity_ci": [spread.low, spread.high]}
    row |= _label_figures(scores, clusters, level)
    row["groups"] = [
        {"fact": fact, "value": value, **_group(scores, mask, clusters, level)}
        for (fact, value), mask in groups.items()
        if scores.labels
    ]
    row["change"] = None if base is None or base is measured else _change(base.scores, scores, clusters, rule)
    return row


def judge(
    measured: Measured,
    base: Measured | None,
    f16: Measured | None,
    clusters: NDArray[np.int64],
    groups: Mapping[tuple[str, str], NDArray[np.bool_]],
    rule: Rule,
) -> Gate | None:
    """The verdict on one model; None for a base, which nobody tuned and no rule applies to."""
    gates = []
    if measured.tuned and base is not None:
        named = {f"{fact.replace('_', ' ')} {value}": mask for (fact, value), mask in groups.items()}
        gates.append(judge_gain(base.scores, measured.scores, clusters, rule, named))
    if f16 is not None:
        gates.append(judge_quantised(f16.scores, measured.scores, clusters, rule))
    if measured.tuned and base is None:
        note = "Not compared with a base: a tuned model cannot pass without that."
        clauses = tuple(clause for gate in gates for clause in gate.clauses)
        return Gate(passed=False, clauses=clauses, notes=(note,))
    return both(*gates) if gates else None


def training_curve(chain: Sequence[Model]) -> list[dict[str, Any]]:
    """Step, loss, validation loss and epsilon of the run behind a model, as far as they are known."""
    for step in chain:
        history = step.facts.get("training", {}).get("history") if step.trained else None
        if isinstance(history, list):
            wanted = ("step", "loss", "validation_loss", "epsilon")
            return [{name: point.get(name) for name in wanted} for point in history]
    return []


def check_same_tokens(measured: Sequence[Measured]) -> None:
    """Check that every engine read the records of one base (or tuned model) as the same token ids.

    Raises:
        ProofFailed: one did not, so that its figures would not be the served model's.
    """
    seen: dict[tuple[str, str], str] = {}
    for one in measured:
        whole = next((step.name for step in one.chain if step.whole), one.model.name)
        key = (whole, one.task.prompt)
        if seen.setdefault(key, one.scores.tokens_sha256) != one.scores.tokens_sha256:
            raise ProofFailed(
                f"{one.model.name} splits the records into other tokens than its base does.",
                "Convert the model again with `cloister quantize`.",
            )


def _label_figures(scores: Scores, clusters: NDArray[np.int64], level: float) -> dict[str, Any]:
    names = ("accuracy", "ci", "macro_precision", "macro_recall", "macro_f1", "macro_f1_ci", "confidence")
    if not scores.labels:
        return {**dict.fromkeys(names), "per_label": [], "confusion": []}
    counts = confusion(scores.gold, scores.predicted, len(scores.labels))
    found = label_metrics(counts)
    accuracy = share_interval(scores.right, clusters, level)
    f1 = macro_f1_interval(scores.gold, scores.predicted, len(scores.labels), clusters, level)
    each = zip(
        scores.labels,
        found.rows,
        found.per_label_precision,
        found.per_label_recall,
        found.per_label_f1,
        strict=True,
    )
    return {
        "accuracy": found.accuracy,
        "ci": [accuracy.low, accuracy.high],
        "macro_precision": found.precision,
        "macro_recall": found.recall,
        "macro_f1": found.f1,
        "macro_f1_ci": [f1.low, f1.high],
        "confidence": float(scores.confidence.mean()),
        "per_label": [
            {"label": label, "rows": rows, "precision": precision, "recall": recall, "f1": score}
            for label, rows, precision, recall, score in each
        ],
        "confusion": counts.tolist(),
    }


def _group(
    scores: Scores, mask: NDArray[np.bool_], clusters: NDArray[np.int64], level: float
) -> dict[str, Any]:
    _, local = np.unique(clusters[mask], return_inverse=True)
    share = share_interval(scores.right[mask], local, level)
    return {
        "rows": int(mask.sum()),
        "units": int(local.max()) + 1,
        "accuracy": share.value,
        "ci": [share.low, share.high],
    }


def _change(base: Scores, tuned: Scores, clusters: NDArray[np.int64], rule: Rule) -> dict[str, Any] | None:
    """Against the base: accuracy in points, relative and as errors; perplexity where tokens agree."""
    found: dict[str, Any] = {}
    if tuned.labels:
        pair = paired_share(base.right, tuned.right, clusters, rule.level)
        wins, losses, chance = mcnemar(base.right, tuned.right)
        errors = relative_change(1 - pair.base_draws, 1 - pair.tuned_draws)
        value = relative_change(np.array([1 - pair.base]), np.array([1 - pair.tuned]))
        found["accuracy"] = {
            "points": pair.difference.as_dict(),
            "relative": pair.relative.as_dict(),
            "errors": between(float(value[0]), errors, rule.level).as_dict(),
            "wins": wins,
            "losses": losses,
            "mcnemar_p": chance,
        }
    if np.array_equal(base.tokens, tuned.tokens):
        pair = paired_perplexity(base.nll, tuned.nll, base.tokens, clusters, rule.level)
        found["perplexity"] = {"relative": pair.relative.as_dict()}
    return found


def _privacy(measured: Measured) -> dict[str, Any] | None:
    """The claim of the run behind a tuned model; {} when it has none, None when nothing was tuned."""
    if not measured.tuned:
        return None
    return next((dict(step.facts["privacy"]) for step in measured.chain if step.facts.get("privacy")), {})
