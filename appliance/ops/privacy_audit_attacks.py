"""Test D: attacks on released models, with what each could have shown at these sizes.

A record's score is its loss under the base minus its loss under the model: how much training helped
with it. Every attack is void when words alone, without any model, tell members from the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.ops.privacy_audit_reading import Reading
from appliance.privacy.attacks import extraction, membership
from appliance.privacy.attacks.verdict import FAIL, NONE, OPEN, PASS, Finding, judged

LEAST = 30  # records a side

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """A model's reading beside its base's, of the same rows; the first `members` rows are members.

    `claim` is the (epsilon, delta) of a private model.
    """

    name: str
    model: Reading
    base: Reading
    members: int
    claim: tuple[float, float] | None

    def parted(self, scores: Floats) -> tuple[Floats, Floats]:
        """Scores of members and of the others, without rows that were not scored."""
        first, second = scores[: self.members], scores[self.members :]
        return first[~np.isnan(first)], second[~np.isnan(second)]


def blind_finding(members: Sequence[str], others: Sequence[str], title: str) -> Finding:
    """Whether the records themselves are a fair test, from their words alone."""
    if min(len(members), len(others)) < LEAST:
        return Finding(
            test="D",
            name="blind baseline",
            on=title,
            verdict=OPEN,
            found=f"{len(members)} members and {len(others)} held-out records are too few ({LEAST} each).",
            ceiling="nothing",
        )
    seen = membership.blind_auc(members, others)
    bad = membership.voids(seen)
    return Finding(
        test="D",
        name="blind baseline",
        on=title,
        verdict=OPEN if bad else PASS,
        found=f"Words alone, without a model: AUC {_span(seen)}."
        + (" Members and held-out records differ in what they say: attacks on them are void." if bad else ""),
        ceiling=f"a split that words give away, from an AUC of {seen.high - seen.value + 0.5:.3f}",
        figures={"auc": seen.value, "interval": [seen.low, seen.high], "void": bad},
    )


def attack_findings(attacked: Attacked, blind: Finding) -> list[Finding]:
    """All attacks on one model; INCONCLUSIVE where `blind` says that they would mean nothing."""
    members, others = attacked.parted(attacked.base.loss - attacked.model.loss)
    if min(len(members), len(others)) < LEAST:
        few = f"Only {len(members)} members and {len(others)} held-out records could be scored."
        return [_d(attacked, "membership", OPEN, few, "nothing")]
    told = [
        _auc(attacked, "membership by loss", members, others),
        _low_rate(attacked, members, others),
        _epsilon(attacked, members, others),
        _min_k(attacked),
        _recital(attacked),
    ]
    if blind.verdict == PASS:
        return told
    why = " Void: words alone tell the two sides apart."
    return [one if one.verdict == NONE else replace(one, verdict=OPEN, found=one.found + why) for one in told]


def _auc(attacked: Attacked, name: str, members: Floats, others: Floats, note: str = "") -> Finding:
    seen = membership.auc_interval(members, others)
    limit = membership.AUC_LIMIT
    return _d(
        attacked,
        name,
        judged(seen.low, seen.high, limit),
        f"AUC {_span(seen)} over {len(members)} members and {len(others)} others; {limit} is allowed,"
        f" a coin has 0.5.{note}",
        f"FAIL from an AUC of about {membership.auc_seen_from(len(members), len(others)):.3f}",
        auc=seen.value,
        interval=[seen.low, seen.high],
        members=len(members),
        others=len(others),
    )


def _low_rate(attacked: Attacked, members: Floats, others: Floats) -> Finding:
    seen = membership.tpr_at(members, others)
    enough = len(others) >= membership.NEEDED
    return _d(
        attacked,
        "membership at 1 %",
        judged(seen.low, seen.high, membership.TPR_LIMIT) if enough else OPEN,
        f"{seen.value:.1%} of the members found with 1 % false alarms ({seen.low:.1%} to {seen.high:.1%});"
        f" {membership.TPR_LIMIT:.0%} is allowed.",
        f"a rate known to {(seen.high - seen.low) / 2:.1%}"
        if enough
        else f"nothing certain: 1 % needs {membership.NEEDED:,} held-out units, there are {len(others):,}",
        tpr=seen.value,
        interval=[seen.low, seen.high],
        others=len(others),
    )


def _epsilon(attacked: Attacked, members: Floats, others: Floats) -> Finding:
    name = "membership against epsilon"
    if attacked.claim is None:
        return _d(attacked, name, NONE, "Nothing is claimed that could be broken.", "nothing")
    claim, delta = attacked.claim
    seen = membership.epsilon_seen(members, others, delta=delta)
    most = membership.epsilon_ceiling(len(members), len(others), delta=delta)
    allowed = membership.allowed_tpr(membership.FPR, claim, delta)
    return _d(
        attacked,
        name,
        FAIL if seen > claim else PASS if most > claim else OPEN,
        f"At no threshold are more found than epsilon {seen:.2f} allows (95 %, all thresholds at once);"
        f" {claim:.2f} is claimed, which allows {allowed:.0%} at 1 % false alarms.",
        f"epsilon {most:.2f}, had members and others not overlapped at all"
        + ("" if most > claim else ": too little to refute this claim"),
        epsilon=seen,
        most=most,
        claim=claim,
    )


def _min_k(attacked: Attacked) -> Finding:
    members, others = attacked.parted(attacked.model.min_k)
    name = "membership by Min-K%++"
    if min(len(members), len(others)) < LEAST:
        short = f"Too few answers of {membership.LEAST_TOKENS} tokens or more."
        return _d(attacked, name, NONE, short, "nothing")
    control = membership.auc_interval(*attacked.parted(attacked.base.min_k))
    note = f" The base, which saw none of them, has {control.value:.3f}."
    found = _auc(attacked, name, members, others, note)
    if membership.voids(control):
        return replace(found, verdict=OPEN, found=found.found + " Void: so the sides differ in themselves.")
    return found


def _recital(attacked: Attacked) -> Finding:
    name = "near-verbatim recital"
    rows = attacked.model.recited
    inside = [at for at in rows if at < attacked.members]
    outside = [at for at in rows if at >= attacked.members]
    if min(len(inside), len(outside)) < LEAST:
        short = f"Too few answers of {extraction.LEAST_ANSWER} tokens or more to recite."
        return _d(attacked, name, NONE, short, "nothing")
    beyond, others = (
        sum(rows[at] and not attacked.base.recited.get(at, False) for at in part)
        for part in (inside, outside)
    )
    worse = extraction.beyond_chance(beyond, len(inside), others, len(outside))
    most = membership.clopper_pearson(beyond, len(inside)).high
    return _d(
        attacked,
        name,
        FAIL if worse else PASS if beyond == 0 else OPEN,
        f"{beyond} of {len(inside)} members are recited within 10 % of edits where the base does not, and"
        f" {others} of {len(outside)} held-out records.",
        f"what is recited by one greedy and 20 sampled tries; up to {most:.1%} of the members may still be",
        members=beyond,
        of_members=len(inside),
        others=others,
        of_others=len(outside),
    )


def _span(seen: membership.Estimate) -> str:
    return f"{seen.value:.3f} ({seen.low:.3f} to {seen.high:.3f})"


def _d(attacked: Attacked, name: str, verdict: str, found: str, ceiling: str, **figures: Any) -> Finding:
    return Finding(
        test="D", name=name, on=attacked.name, verdict=verdict, found=found, ceiling=ceiling, figures=figures
    )
