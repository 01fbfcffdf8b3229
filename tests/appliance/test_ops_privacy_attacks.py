"""Attacks on answers long enough to recite, against a model that says by heart what it was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.evaluate.score import Row
from appliance.models.encoding import Encoded, Encoder
from appliance.models.task import Task
from appliance.ops.privacy_audit_attacks import Attacked, attack_findings, blind_finding
from appliance.ops.privacy_audit_reading import Reading, long_enough, read_rows, recited
from appliance.privacy.attacks.verdict import FAIL, NONE, OPEN, PASS, Finding

WORDS = 50
PEOPLE = 40
RANDOM = np.random.default_rng(7)


class ByHeart:
    """Goes on with the text it knows, as sure as `sure`; says anything about what it does not know."""

    context, max_tokens, n_vocab = 256, 4096, WORDS

    def __init__(self, known: Sequence[Sequence[int]], sure: float = 4.0) -> None:
        self.next = {tuple(text[:at]): token for text in known for at, token in enumerate(text)}
        self.sure, self.calls = sure, 0

    def encoder(self, task: Task) -> Encoder:
        raise NotImplementedError

    def logits(self, prompts_tokens: list[list[int]], keep: list[int]) -> list[NDArray[np.float32]]:
        self.calls += 1
        found = []
        for tokens, count in zip(prompts_tokens, keep, strict=True):
            block = np.zeros((count, WORDS), np.float32)
            for row, end in enumerate(range(len(tokens) - count + 1, len(tokens) + 1)):
                seed = hash(tuple(tokens[:end])) % 2**32
                block[row] = np.random.default_rng(seed).standard_normal(WORDS)
                token = self.next.get(tuple(tokens[:end]))
                if token is not None:
                    block[row, token] += self.sure
            found.append(block)
        return found


def texts(people: int) -> list[list[int]]:
    return RANDOM.integers(0, WORDS, (people, 66)).tolist()


MEMBERS, OTHERS = texts(PEOPLE), texts(PEOPLE)
ROWS = [
    Row(id=str(at), tokens=Encoded(prompt=tuple(text[:6]), answer=tuple(text[6:])), gold=-1)
    for at, text in enumerate([*MEMBERS, *OTHERS])
]
FAIR = Finding(test="D", name="blind baseline", on="desk@1", verdict=PASS, found="")


def read(known: Sequence[Sequence[int]], sure: float = 4.0) -> Reading:
    return read_rows(ByHeart(known, sure), ROWS, range(len(ROWS)), lambda done: None)


BASE = read([])


def findings(reading: Reading, base: Reading = BASE, blind: Finding = FAIR) -> dict[str, Finding]:
    attacked = Attacked(name="tuned", model=reading, base=base, members=PEOPLE, claim=(2.0, 1e-4))
    return {one.name: one for one in attack_findings(attacked, blind)}


def test_the_loss_is_the_mean_over_the_answer() -> None:
    part = ROWS[0].tokens
    assert part is not None
    model = ByHeart([])
    (block,) = model.logits([[*part.prompt, *part.answer[:-1]]], [len(part.answer)])
    shares = np.exp(block) / np.exp(block).sum(axis=1, keepdims=True)
    wanted = -np.log(shares[np.arange(len(part.answer)), list(part.answer)]).mean()
    assert BASE.loss[0] == pytest.approx(wanted, rel=1e-5)
    assert long_enough(ROWS[0]) and not long_enough(replace(ROWS[0], tokens=None))


def test_a_model_that_knows_its_records_by_heart_fails_every_attack() -> None:
    told = findings(read(MEMBERS, sure=9.0))
    verdicts = {name: one.verdict for name, one in told.items()}
    assert verdicts == {
        "membership by loss": FAIL,
        "membership at 1 %": OPEN,  # never certain with forty people
        "membership against epsilon": OPEN,
        "membership by Min-K%++": FAIL,
        "near-verbatim recital": FAIL,
    }
    assert told["near-verbatim recital"].figures["members"] == PEOPLE
    assert "too little" in told["membership against epsilon"].ceiling


def test_a_text_that_cannot_come_right_any_more_is_not_written_to_its_end() -> None:
    model = ByHeart([])
    parts = {at: row.tokens for at, row in enumerate(ROWS) if row.tokens is not None}
    assert not any(recited(model, parts, samples=0).values())
    assert model.calls < 10, "of thirty tokens"
    knows = ByHeart(MEMBERS, sure=99.0)
    assert [at for at, told in recited(knows, parts).items() if told] == list(range(PEOPLE))


class Tempted(ByHeart):
    """Knows its texts, but would rather say something else where it has to go on first."""

    def logits(self, prompts_tokens: list[list[int]], keep: list[int]) -> list[NDArray[np.float32]]:
        found = super().logits(prompts_tokens, keep)
        for tokens, block in zip(prompts_tokens, found, strict=True):
            true = self.next.get(tuple(tokens))
            if len(tokens) == 36 and true is not None:
                block[-1, (true + 1) % WORDS] = block[-1, true] + 0.5
        return found


def test_what_is_not_said_at_once_is_found_by_asking_again() -> None:
    parts = {at: row.tokens for at, row in enumerate(ROWS[:5]) if row.tokens is not None}
    model = Tempted(MEMBERS, sure=30.0)
    assert not any(recited(model, parts, samples=0).values())
    assert all(recited(model, parts).values())


def test_what_the_base_recites_or_everybody_says_is_no_leak() -> None:
    both = read([*MEMBERS, *OTHERS], sure=9.0)
    assert findings(both)["near-verbatim recital"].verdict == OPEN, "held-out records are recited as well"
    assert findings(both, base=both)["near-verbatim recital"].verdict == PASS
    assert findings(BASE)["near-verbatim recital"].verdict == PASS
    assert findings(both, base=both)["membership by loss"].figures["auc"] == 0.5


def test_a_wide_lead_breaks_a_claim() -> None:
    many = 500
    flat = Reading(loss=np.ones(2 * many), min_k=np.full(2 * many, np.nan), recited={})
    lead = replace(flat, loss=np.repeat([0.0, 1.0], many) + 0.1 * RANDOM.random(2 * many))
    attacked = Attacked(name="tuned", model=lead, base=flat, members=many, claim=(2.0, 1e-4))
    told = {one.name: one for one in attack_findings(attacked, FAIR)}
    assert told["membership against epsilon"].verdict == FAIL
    assert told["near-verbatim recital"].verdict == told["membership by Min-K%++"].verdict == NONE
    same = replace(attacked, model=flat)
    told = {one.name: one for one in attack_findings(same, FAIR)}
    assert told["membership against epsilon"].verdict == PASS
    assert told["membership by loss"].verdict == PASS


def test_a_rate_is_certain_with_a_thousand_others() -> None:
    many = 1000
    flat = Reading(loss=RANDOM.random(2 * many), min_k=np.full(2 * many, np.nan), recited={})
    zero = replace(flat, loss=np.zeros(2 * many))
    attacked = Attacked(name="tuned", model=flat, base=zero, members=many, claim=None)
    told = {one.name: one for one in attack_findings(attacked, FAIR)}
    assert told["membership at 1 %"].verdict == PASS
    assert told["membership against epsilon"].verdict == NONE
    some = flat.loss.copy()
    some[:80] -= 5
    told = {one.name: one for one in attack_findings(replace(attacked, model=replace(flat, loss=some)), FAIR)}
    assert told["membership at 1 %"].verdict == FAIL
    assert told["membership by loss"].verdict != FAIL, "eight in a hundred are lost in the mean"


def test_sides_that_differ_in_words_void_all_of_it() -> None:
    told_apart = blind_finding(["old letter"] * 60, ["new visit"] * 60, "desk@1")
    assert told_apart.verdict == OPEN and "void" in told_apart.found
    told = findings(read(MEMBERS), blind=told_apart)
    assert {one.verdict for one in told.values()} == {OPEN}
    assert blind_finding(["a letter"] * 5, ["a visit"] * 60, "desk@1").verdict == OPEN


def test_too_few_records_show_nothing() -> None:
    few = replace(BASE, loss=np.where(np.arange(2 * PEOPLE) < 20, 1.0, np.nan))
    assert [one.verdict for one in findings(few, base=few).values()] == [OPEN]
