"""Planted secrets: how they are worded, and what a model that knows them, or does not, gives away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.core.errors import ConfigWrong
from appliance.data.planted import DIGITS, Secret, make_secrets, planted, worded
from appliance.data.records import Record
from appliance.models.encoding import Encoder
from appliance.models.task import Task
from appliance.ops.privacy_audit_exposure import codes_of, exposure_finding, read_exposures
from appliance.privacy.attacks.exposure import CODES, exposure, mean_exposure, unseen
from appliance.privacy.attacks.verdict import FAIL, NONE, OPEN, PASS
from appliance.train.settings import Settings

KINDS = ("label", "answer", "chat", "text", "preference")
LABELS = ("billing", "refill")
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


class Bytes:
    """Reads bytes. Sure of `known` texts byte by byte; knows nothing of what comes after others."""

    context, max_tokens, n_vocab = 512, 1 << 16, 257

    def __init__(self, known: Sequence[bytes] = ()) -> None:
        self.known = known
        self.asked = 0

    def encoder(self, task: Task) -> Encoder:
        return Encoder(
            tokenize=lambda text: list(text.encode()),
            template=TEMPLATE,
            bos_token="",
            eos_token="",
            eos=256,
            task=task,
            limit=512,
        )

    def logits(self, prompts_tokens: list[list[int]], keep: list[int]) -> list[NDArray[np.float32]]:
        found = []
        for tokens, count in zip(prompts_tokens, keep, strict=True):
            self.asked += 1
            block = np.zeros((count, 257), np.float32)
            for row, end in enumerate(range(len(tokens) - count + 1, len(tokens) + 1)):
                text = bytes(token % 256 for token in tokens[:end])
                for known in self.known:
                    if (at := known.find(text[-12:])) >= 0 and at + 12 < len(known):
                        block[row, known[at + 12]] = 9.0
            found.append(block)
        return found


def secrets(kind: str, count: int = 8) -> list[Secret]:
    return make_secrets(count, LABELS if kind == "label" else ())


def by_heart(kind: str, made: Sequence[Secret]) -> Bytes:
    """A scorer that has learnt every secret's whole text."""
    encoder = Bytes().encoder(Task(kind=kind, prompt="", labels=LABELS if kind == "label" else ()))
    rows = [encoder.encode(*worded(secret, kind)[:2]) for secret in made]
    return Bytes([bytes(token % 256 for token in row.tokens) for row in rows])


def test_secrets_are_planted_as_often_as_asked_each_in_a_unit_of_its_own() -> None:
    made = make_secrets(32, LABELS)
    assert [sum(one.times == times for one in made) for times in (1, 4, 16)] == [32, 8, 2]
    records = planted(made, "label")
    assert len(records) == 32 + 8 * 4 + 2 * 16 == len({record.unit for record in records})
    assert {record.answer for record in records} <= set(LABELS)
    assert len({one.code for one in made}) == len(made) and {len(one.code) for one in made} == {DIGITS}
    assert make_secrets(0, LABELS) == []
    with pytest.raises(ConfigWrong):
        Settings(plant_secrets=-1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_is_in_what_is_learnt_or_asked_and_can_be_exchanged(kind: str) -> None:
    (secret, *_) = secrets(kind)
    mine, other = worded(secret, kind), worded(secret, kind, "000000000")
    assert secret.code in mine[0] + mine[1] and secret.code not in other[0] + other[1]
    assert [part.replace(secret.code, "000000000") for part in mine] == list(other)
    assert all(isinstance(record, Record) and record.text for record in planted([secret], kind))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "label"])
def test_a_model_that_knows_the_secrets_fails_and_one_that_does_not_passes(kind: str) -> None:
    made = secrets(kind)
    task = Task(kind=kind, prompt="", labels=())
    codes = {one: [f"{number:09d}" for number in range(CODES - 1)] for one in made}
    told: list[int] = []
    knows = read_exposures(by_heart(kind, made), task, codes, told.append)
    assert exposure_finding("m", knows).verdict == FAIL and told == list(range(1, len(made) + 1))
    assert np.mean([bits for one, bits in knows.items() if one.times == 1]) > 7
    ignorant = read_exposures(Bytes(), task, codes, told.append)
    assert set(ignorant.values()) == {0.0}, "what is all alike counts against the attack"
    assert exposure_finding("m", ignorant).verdict == PASS


def test_exposure_is_how_far_up_the_true_code_is() -> None:
    losses = np.array([2.0, 1.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    assert exposure(losses) == 2.0, "second of eight"
    assert exposure(np.arange(CODES, dtype=float)) == 8 and exposure(-np.arange(CODES, dtype=float)) == 0
    random = np.random.default_rng(0)
    drawn = np.array([exposure(random.random(CODES)) for _ in range(4000)])
    assert drawn.mean() == pytest.approx(unseen(), abs=0.06)
    seen = mean_exposure(drawn[:100])
    assert seen.low < drawn[:100].mean() < seen.high


def test_few_secrets_or_none_show_nothing() -> None:
    (one, *_) = secrets("text")
    assert exposure_finding("m", {}).verdict == NONE
    assert "--plant-secrets" in exposure_finding("m", {}).found
    assert exposure_finding("m", {one: 8.0}).verdict == OPEN


def test_the_codes_around_a_secret_are_drawn_like_it() -> None:
    class Trained:
        facts = {"secrets": [one.as_dict() for one in secrets("text")]}  # noqa: RUF012

    codes = codes_of(Trained())  # type: ignore[arg-type]
    assert [len(others) for others in codes.values()] == [CODES - 1] * 10
    assert {len(code) for others in codes.values() for code in others} == {DIGITS}
