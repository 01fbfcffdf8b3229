"""The rules a model must pass before it is served, fixed before anything is measured.

A tuned model must be at least 15 % better than its base: in accuracy (relative) where the task has
labels, in perplexity (15 % lower) where answers are free text. Not the figure but the worse end of
its paired 95 % interval decides, so that a small test set cannot pass by luck; the gate then says how
many records would settle it. A quantised file may lose at most 2 points of accuracy to its own F16,
judged on the figure (the interval is shown beside it), 5 % in perplexity.

Numbers in a clause are shares (0.15 is 15 %); `need` and `got` are the same in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.core.errors import ConfigWrong, GateFailed
from appliance.evaluate.compare import (
    Floats,
    Interval,
    Paired,
    mcnemar,
    paired_perplexity,
    paired_share,
)
from appliance.evaluate.score import Scores


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What the gate asks. Shares between 0 and 1; `units` is the fewest test units that can judge."""

    gain: float = 0.15
    quantised_loss: float = 0.02
    quantised_perplexity: float = 0.05
    group_loss: float = 0.02
    chance: float = 0.05
    level: float = 0.95
    units: int = 20

    def __post_init__(self) -> None:
        """Raises: ConfigWrong: values out of range."""
        wrong = [name for name, value in asdict(self).items() if name != "units" and not 0 < value < 1]
        wrong += ["units"] if self.units < 2 else []
        if wrong:
            raise ConfigWrong(
                f"These gate settings are out of range: {', '.join(wrong)}.",
                "Give shares above 0 and below 1, such as 0.15 for 15 %; units from 2 upwards.",
            )


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One demand and what was found."""

    name: str
    need: str
    got: str
    passed: bool
    limit: float
    value: float | None


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The verdict. `rows_needed`: about how many test records would decide; None if no number would."""

    passed: bool
    clauses: tuple[Clause, ...]
    notes: tuple[str, ...] = ()
    rows_needed: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self),
            "clauses": [asdict(clause) for clause in self.clauses],
            "notes": list(self.notes),
        }


def rule_from(values: Mapping[str, Any]) -> Rule:
    """A rule from a JSON object; what is missing takes its default.

    Raises:
        ConfigWrong: unknown names or values out of range.
    """
    unknown = sorted(set(values) - {field.name for field in fields(Rule)})
    if unknown:
        raise ConfigWrong(
            f"Unknown gate settings: {', '.join(unknown)}.", "See the evaluation report's gate."
        )
    return Rule(**values)


def judge_gain(
    base: Scores,
    tuned: Scores,
    clusters: NDArray[np.int64],
    rule: Rule,
    groups: Mapping[str, NDArray[np.bool_]] | None = None,
) -> Gate:
    """Whether `tuned` is better than `base` by `rule.gain`; `groups` are masks over the rows.

    Raises:
        GateFailed: nothing was scored. ConfigWrong: not the same records in the same order.
    """
    _check(base, tuned, clusters)
    if not tuned.labels:
        return _judge_perplexity(base, tuned, clusters, rule)
    pair = paired_share(base.right, tuned.right, clusters, rule.level)
    _, _, chance = mcnemar(base.right, tuned.right)
    clauses = [
        Clause(
            name="accuracy",
            need=f"+{rule.gain:.0%} accuracy relative to the base (low end)",
            got=f"{_percent(pair.relative.value)} (low {_percent(pair.relative.low, rule.gain)})",
            passed=pair.relative.low >= rule.gain,
            limit=rule.gain,
            value=_finite(pair.relative.low),
        ),
        Clause(
            name="chance",
            need=f"McNemar p <= {rule.chance:g}",
            got=f"p = {_apart(chance, rule.chance, '.2g', '.3g', '.4g')}",
            passed=chance <= rule.chance and pair.tuned > pair.base,
            limit=rule.chance,
            value=chance,
        ),
        _enough_units(clusters, rule),
    ]
    if groups:
        clauses.append(_worst_group(base, tuned, clusters, groups, rule))
    notes = []
    if pair.base * (1 + rule.gain) > 1:
        notes.append(f"The base has {pair.base:.1%} right: {rule.gain:.0%} more is not possible here.")
    margin = pair.tuned_draws - (1 + rule.gain) * pair.base_draws
    needed = rows_needed(pair.tuned - (1 + rule.gain) * pair.base, margin, len(base.ids), rule.level)
    return _verdict(clauses, notes, needed)


def judge_quantised(reference: Scores, quantised: Scores, clusters: NDArray[np.int64], rule: Rule) -> Gate:
    """Whether a quantised file is as good as the F16 it came from.

    Raises:
        GateFailed: nothing was scored. ConfigWrong: not the same records in the same order.
    """
    _check(reference, quantised, clusters)
    if quantised.labels:
        pair = paired_share(reference.right, quantised.right, clusters, rule.level)
        change, limit = pair.difference, -rule.quantised_loss
        clause = Clause(
            name="quantised",
            need=f"{limit * 100:+.1f} points to F16 or better",
            got=f"{_points(change.value, limit)} points ({_points(change.low)} to {_points(change.high)})",
            passed=change.value >= limit - 1e-12,
            limit=limit,
            value=change.value,
        )
        return _verdict([clause])
    change = _perplexities(reference, quantised, clusters, rule).relative
    clause = Clause(
        name="quantised",
        need=f"perplexity +{rule.quantised_perplexity:.0%} to F16 or better",
        got=f"{_percent(change.value, rule.quantised_perplexity)}"
        f" ({_percent(change.low)} to {_percent(change.high)})",
        passed=change.value <= rule.quantised_perplexity,
        limit=rule.quantised_perplexity,
        value=change.value,
    )
    return _verdict([clause])


def both(*gates: Gate) -> Gate:
    """One verdict out of several: all must pass.

    Raises:
        GateFailed: there is none.
    """
    if not gates:
        raise GateFailed("No rule was applied.", "Evaluate against a base with --against BASE.")
    needed = [gate.rows_needed for gate in gates if gate.rows_needed is not None]
    return Gate(
        passed=all(gate.passed for gate in gates),
        clauses=tuple(clause for gate in gates for clause in gate.clauses),
        notes=tuple(note for gate in gates for note in gate.notes),
        rows_needed=max(needed, default=None),
    )


def rows_needed(margin: float, draws: Floats, rows: int, level: float) -> int | None:
    """About how many rows would put the interval of `margin` above 0, by the normal approximation;
    None when the margin itself is not above 0.
    """
    if margin <= 0:
        return None
    reach = NormalDist().inv_cdf(0.5 + level / 2) * float(draws.std())
    return max(1, math.ceil(rows * (reach / margin) ** 2))


def _judge_perplexity(base: Scores, tuned: Scores, clusters: NDArray[np.int64], rule: Rule) -> Gate:
    pair = _perplexities(base, tuned, clusters, rule)
    clause = Clause(
        name="perplexity",
        need=f"-{rule.gain:.0%} perplexity relative to the base (high end)",
        got=f"{_percent(pair.relative.value)} (high {_percent(pair.relative.high, -rule.gain)})",
        passed=pair.relative.high <= -rule.gain,
        limit=-rule.gain,
        value=_finite(pair.relative.high),
    )
    draws = math.log(1 - rule.gain) + np.log(pair.base_draws) - np.log(pair.tuned_draws)
    margin = math.log(1 - rule.gain) + math.log(pair.base) - math.log(pair.tuned)
    needed = rows_needed(margin, draws, len(base.ids), rule.level)
    return _verdict([clause, _enough_units(clusters, rule)], [], needed)


def _perplexities(base: Scores, tuned: Scores, clusters: NDArray[np.int64], rule: Rule) -> Paired:
    if not np.array_equal(base.tokens, tuned.tokens):
        raise ConfigWrong(
            "The two models split the answers into other tokens: their perplexities are not comparable.",
            "Compare models of one base.",
        )
    return paired_perplexity(base.nll, tuned.nll, base.tokens, clusters, rule.level)


def _worst_group(
    base: Scores,
    tuned: Scores,
    clusters: NDArray[np.int64],
    groups: Mapping[str, NDArray[np.bool_]],
    rule: Rule,
) -> Clause:
    """A group fails when its whole interval lies below the limit: small groups rarely can."""
    found: dict[str, Interval] = {}
    for name, mask in groups.items():
        _, local = np.unique(clusters[mask], return_inverse=True)
        found[name] = paired_share(base.right[mask], tuned.right[mask], local, rule.level).difference
    worst = min(found, key=lambda name: found[name].high)
    change = found[worst]
    return Clause(
        name="groups",
        need=f"no group worse than {-rule.group_loss * 100:+.0f} points to the base",
        got=f"{worst} {_points(change.value)} (high {_points(change.high, -rule.group_loss)})",
        passed=change.high >= -rule.group_loss,
        limit=-rule.group_loss,
        value=change.high,
    )


def _enough_units(clusters: NDArray[np.int64], rule: Rule) -> Clause:
    count = len(np.unique(clusters))
    return Clause(
        name="units",
        need=f"{rule.units} test units",
        got=f"{count}",
        passed=count >= rule.units,
        limit=rule.units,
        value=count,
    )


def _check(base: Scores, tuned: Scores, clusters: NDArray[np.int64]) -> None:
    if not base.ids or not tuned.ids or not tuned.fits.any():
        raise GateFailed(
            "No record was scored, so there is nothing to judge.", "Evaluate a split with records."
        )
    if base.ids != tuned.ids or len(clusters) != len(base.ids) or base.labels != tuned.labels:
        raise ConfigWrong(
            "The two models were not scored on the same records.", "Evaluate both in one run: --against BASE."
        )


def _verdict(clauses: list[Clause], notes: list[str] | None = None, needed: int | None = None) -> Gate:
    return Gate(
        passed=all(clause.passed for clause in clauses),
        clauses=tuple(clauses),
        notes=tuple(notes or ()),
        rows_needed=needed,
    )


def _percent(share: float, limit: float | None = None) -> str:
    return f"{_points(share, limit)}%" if math.isfinite(share) else "from none"


def _points(share: float, limit: float | None = None) -> str:
    return _apart(share * 100, None if limit is None else limit * 100, "+.1f", "+.2f", "+.3f", "+.4f")


def _apart(value: float, limit: float | None, *forms: str) -> str:
    """`value` in the first of `forms` that does not make it look equal to the `limit` it misses."""
    texts = [format(value, form) for form in forms]
    if limit is None or math.isclose(value, limit, rel_tol=1e-9):
        return texts[0]
    return next(
        (text for text, form in zip(texts, forms, strict=True) if text != format(limit, form)), texts[-1]
    )


def _finite(share: float) -> float | None:
    return share if math.isfinite(share) else None
