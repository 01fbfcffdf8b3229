"""Learning when to send a question on to the large model, from evaluations of both.

A question counts as worth sending where the large model's answer is better: right where the small one's
is wrong (label tasks), or the reference answer clearly likelier, by character (other tasks). The table
"threshold -> share sent on, quality, seconds" is measured on records the router did not learn from:
cross-validated, with all records of one unit in one fold. A threshold chosen from that table has been
chosen on the same records, so expect slightly less.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.core.errors import ConfigWrong, DataRejected, NotFound
from appliance.core.home import Home
from appliance.data import store
from appliance.evaluate import rows
from appliance.evaluate.rows import Answers
from appliance.models import registry
from appliance.privacy import uncharged
from appliance.serve import route_changes
from appliance.serve import router as routers
from appliance.serve.routes import HYBRID, Route

BY = ("confidence", "prompt")
FOLDS = 5
_FEWEST = 40  # records
_FEWEST_WINS = 8
_MOST = 5000
_CLEARLY = 0.02  # likelihood a character
_NEAR_BEST = 0.005  # of quality: a cheaper threshold within this of the best one is advised

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Both models on the same records. Qualities are 0 or 1 in label tasks, else likelihoods a character."""

    dataset: str
    split: str
    task: str
    jobs: tuple[str, str]
    texts: tuple[str, ...]
    units: tuple[str, ...]
    small: Floats
    large: Floats
    confidence: Floats | None
    seconds: tuple[float, float]

    @property
    def worse(self) -> NDArray[np.bool_]:
        """Where the large model's answer is better."""
        return self.large > self.small + (0.0 if self.task == "label" else _CLEARLY)


def make_hybrid(
    home: Home,
    name: str,
    *,
    small: str,
    large: str,
    threshold: float | None = None,
    by: str | None = None,
    who: str,
) -> Route:
    """A new hybrid route. Without `by` label models go by the small one's confidence and others by the
    prompt; without `threshold` the cheapest one near the best quality is taken.

    Raises:
        ConfigWrong, NotFound: names or settings that cannot be used; no evaluation that has both models.
        DataRejected: too few records, or too few that the large model answers better.
    """
    route_changes.check_new(home, name, small, large)
    if by not in (None, *BY):
        raise ConfigWrong(f"There is no signal called {by}.", f"Choose one of {', '.join(BY)}.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ConfigWrong(f"A threshold of {threshold:g} is not between 0 and 1.", "Give one like 0.5.")
    facts: dict[str, Any] = {"a": small, "b": large, "by": by, "threshold": threshold, "table": []}
    try:
        pairs = pairs_of(home, small, large)
    except NotFound:
        if by != "confidence" or threshold is None:  # which need nothing to be learnt
            raise
        return route_changes.add(home, name, HYBRID, facts, who=who)
    facts["by"] = by or ("prompt" if pairs.confidence is None else "confidence")
    facts["table"] = table_of(pairs, signal_of(pairs, facts["by"]), facts["by"])
    facts["threshold"] = advise(facts["table"]) if threshold is None else threshold
    facts["learnt"] = {
        "dataset": pairs.dataset,
        "split": pairs.split,
        "task": pairs.task,
        "records": len(pairs.texts),
        "large_better": int(pairs.worse.sum()),
        "jobs": sorted(set(pairs.jobs)),
    }
    if facts["by"] == "prompt":
        facts["router"] = _learnt(home, name, pairs, who)
    return route_changes.add(home, name, HYBRID, facts, who=who)


def _learnt(home: Home, name: str, pairs: Pairs, who: str) -> dict[str, str]:
    """Learn from all records, which no budget is charged for: that is written down first."""
    dataset = pairs.dataset.partition("@")[0]
    uncharged.note(home, dataset, job=f"route {name}", kind=uncharged.OPEN, who=who)
    file = f"{name}-{secrets.token_hex(4)}.npz"
    learnt = routers.learn(routers.stacked(pairs.texts), pairs.worse)
    return {"file": file, "sha256": routers.save(learnt, home.routes / file)}


def pairs_of(home: Home, small: str, large: str) -> Pairs:
    """Both models on the records that both were evaluated on, from the newest evaluations of these files.

    Raises:
        NotFound: there are none. DataRejected: too few records in common, or running text.
    """
    first, second = (_evaluations(home, name) for name in (small, large))
    shared = [
        (one, other)
        for one in first
        for other in second
        if (one.dataset, one.split, one.task) == (other.dataset, other.split, other.task)
    ]
    if not shared:
        raise NotFound(
            f"{small} and {large} were not evaluated on the same dataset.",
            f"Evaluate both: cloister evaluate {small} --dataset NAME, then {large}.",
        )
    return _joined(home, *shared[0])


def _evaluations(home: Home, name: str) -> list[Answers]:
    """Those of the very file that is registered."""
    sha256 = registry.get(home, name).sha256
    return [answers for answers in rows.read(home, name) if answers.sha256 == sha256]


def _joined(home: Home, small: Answers, large: Answers) -> Pairs:
    """By record id. At most 5,000 records, taken evenly."""
    if small.task == "text":
        raise DataRejected("Running text is not asked for, so nothing can be routed.", "Take another task.")
    records = {record.id: record for record in store.read(store.get(home, small.dataset), small.split)}
    place = {record: at for at, record in enumerate(large.ids)}
    found = [
        (at, place[record]) for at, record in enumerate(small.ids) if record in place and record in records
    ]
    if len(found) < _FEWEST:
        raise DataRejected(
            f"{small.model} and {large.model} have {len(found)} evaluated records in common;"
            f" {_FEWEST} are needed.",
            "Evaluate both on all of a split, without --limit.",
        )
    found = found[:: -(-len(found) // _MOST)]
    mine, theirs = (np.array(side) for side in zip(*found, strict=True))
    chosen = [records[small.ids[at]] for at in mine]
    size = np.array([max(len(record.answer), 1) for record in chosen], np.float64)
    label = small.task == "label"
    return Pairs(
        dataset=small.dataset,
        split=small.split,
        task=small.task,
        jobs=(small.job, large.job),
        texts=tuple(_asked(record.text, small.task) for record in chosen),
        units=tuple(record.unit or record.group or record.id for record in chosen),
        small=small.right[mine].astype(float) if label else np.exp(-small.nll[mine] / size),
        large=large.right[theirs].astype(float) if label else np.exp(-large.nll[theirs] / size),
        confidence=None if small.confidence is None else small.confidence[mine],
        seconds=(small.seconds, large.seconds),
    )


def _asked(text: str, task: str) -> str:
    """What the user says last: all a router sees of a request."""
    if task != "chat":
        return text
    said = [turn["content"] for turn in json.loads(text) if turn["role"] == "user"]
    return str(said[-1]) if said else ""


def signal_of(pairs: Pairs, by: str) -> Floats:
    """The small model's confidence, or the odds of a router that has not seen the record or its unit.

    Raises:
        ConfigWrong: the models give no confidence. DataRejected: too little to learn from.
    """
    if by == "confidence":
        if pairs.confidence is None:
            raise ConfigWrong("These models give no confidence.", "Route by the prompt: --by prompt.")
        return pairs.confidence
    worse, wins = pairs.worse, int(pairs.worse.sum())
    if not _FEWEST_WINS <= wins <= len(worse) - _FEWEST_WINS:
        raise DataRejected(
            f"The large model is better on {wins} of {len(worse)} records: nothing to learn from.",
            "Use one of the two models alone, or evaluate on more records.",
        )
    rows_of, folds = routers.stacked(pairs.texts), np.array([_fold(unit) for unit in pairs.units])
    odds = np.full(len(folds), wins / len(folds))
    for fold in range(FOLDS):
        rest, held = folds != fold, folds == fold
        if held.any() and 0 < worse[rest].sum() < rest.sum():
            odds[held] = routers.learn(rows_of[rest], worse[rest]).odds_of(rows_of[held])
    return odds


def table_of(pairs: Pairs, signal: Floats, by: str) -> list[dict[str, float]]:
    """Thresholds from "nothing is sent on" to "all": share sent on, quality, seconds a question.

    By confidence an answer below the threshold is sent on; by prompt a question with odds of at least it.
    """
    small, large = pairs.seconds
    cuts = {0.0, 1.0, *(round(float(cut), 3) for cut in np.quantile(signal, np.linspace(0.05, 0.95, 19)))}
    found: dict[float, dict[str, float]] = {}
    for threshold in sorted(cuts):
        sent = signal < threshold if by == "confidence" else signal >= threshold
        share = float(sent.mean())
        seconds = small + share * large if by == "confidence" else (1 - share) * small + share * large
        quality = float(np.where(sent, pairs.large, pairs.small).mean())
        row = {"threshold": threshold, "share": share, "quality": quality, "seconds": seconds}
        found.setdefault(share, row)
    return sorted(found.values(), key=lambda row: row["share"])


def advise(table: list[dict[str, float]]) -> float:
    """The threshold of the cheapest row whose quality is near the best one's."""
    best = max(row["quality"] for row in table)
    good = [row for row in table if row["quality"] >= best - _NEAR_BEST]
    return min(good, key=lambda row: row["seconds"])["threshold"]


def _fold(unit: str) -> int:
    """The same unit is in the same fold on every machine."""
    return hashlib.sha256(unit.encode()).digest()[0] % FOLDS
