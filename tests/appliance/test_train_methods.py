"""Every method and objective: per-record gradients are the true ones, and no record moves another's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from appliance.core.errors import ConfigWrong
from appliance.models.encoding import Encoded, Encoder, Example, Pair
from appliance.models.importing import DEMO_BASE
from appliance.models.load import encoder_for, load_tokenizer, load_torch
from appliance.models.task import PROMPT, Task
from appliance.train import losses
from appliance.train.adapt import adapt
from appliance.train.batch import answer_logits, collate
from appliance.train.engine import check_engine, engine_for
from appliance.train.hooks import HookEngine
from appliance.train.result import save_weights
from appliance.train.settings import Settings
from appliance.train.slots import SlotEngine
from appliance.train.soft import PromptedEmbedding, prompted_words

LABELS = ("billing", "refill", "appointment")
TEXTS = [
    ("My bill is wrong again.", "billing"),
    ("I need more of my tablets before the weekend, please call me back about it.", "refill"),
    ("Can I come in on Tuesday?", "appointment"),
    ("Why was I charged twice for one visit?", "billing"),
]
TRAINED = {
    "lora": 24_576,
    "last-layers": 4 * 256 * 256 + 3 * 256 * 768 + 2 * 256,
    "head": 4096 * 256,
    "full": 3_606_272,
    "prompt": 16 * 256,
}


def made(method: str, folder: Path, **values: Any) -> tuple[Any, Encoder]:
    """The demo base ready for `method`, away from its start so that all gradients are alive."""
    settings = Settings(method=method, freeze_a=False, **values)
    words, first = DEMO_BASE, 0
    if method == "prompt":
        words = folder / "words"
        first = prompted_words(DEMO_BASE, words, settings.prompt_tokens)
    model, tokenizer = load_torch(DEMO_BASE)
    tuned = adapt(model, settings, first)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, part in tuned.named_parameters():
            if "lora_B" in name:
                part.normal_(0, 0.02)
    task = Task(kind="label", prompt=PROMPT, labels=LABELS)
    return tuned, encoder_for(load_tokenizer(words) if first else tokenizer, words, task, 512)


def plain_gradient(model: Any, loss: losses.Loss, record: Example) -> torch.Tensor:
    """By ordinary autograd: one record, every logit, no hooks."""
    batch = collate([record], "cpu")
    model.zero_grad()
    shown = model(
        input_ids=batch.tokens, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
    ).logits
    picked = shown[batch.rows, batch.columns - batch.keep + batch.tokens.shape[1]].float()
    torch.autograd.backward(loss(picked, batch, [record]).sum())
    trained = [part for part in model.parameters() if part.requires_grad]
    found = torch.cat([part.grad.reshape(-1) for part in trained])
    model.zero_grad()
    return found


def apart(rows: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return (rows - others).norm(dim=1) / others.norm(dim=1)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", TRAINED)
def test_each_method_trains_what_it_says_with_true_gradients(
    method: str, checkpointing: bool, tmp_path: Path
) -> None:
    tuned, encoder = made(method, tmp_path, checkpointing=checkpointing)
    records = [encoder.encode(*text) for text in TEXTS]
    engine = engine_for(tuned, losses.full_loss, "cpu")
    assert isinstance(engine, SlotEngine if method == "lora" else HookEngine)
    found, _ = engine.unit_gradients([[record] for record in records])
    check_engine(engine, records[:2])
    engine.close()
    assert found.shape == (len(TEXTS), TRAINED[method])
    wanted = torch.stack([plain_gradient(tuned, losses.full_loss, record) for record in records])
    assert float(apart(found, wanted).max()) < 1e-4


@pytest.mark.parametrize("method", ["lora", "full", "prompt"])
def test_bfloat16_keeps_what_is_trained_in_float32(method: str, tmp_path: Path) -> None:
    tuned, encoder = made(method, tmp_path, precision="bfloat16")
    assert {part.dtype for part in tuned.parameters() if part.requires_grad} == {torch.float32}
    records = [encoder.encode(*text) for text in TEXTS]
    engine = engine_for(tuned, losses.full_loss, "cpu")
    check_engine(engine, records[:2], "bfloat16")
    rounded, _ = engine.unit_gradients([[record] for record in records])
    exact, _ = made(method, tmp_path)
    other = engine_for(exact, losses.full_loss, "cpu")
    wanted, _ = other.unit_gradients([[record] for record in records])
    # With 8 bits a number, and how they are rounded is the processor's: .19 with AVX2, .23 with AMX.
    assert 1e-6 < float(apart(rounded, wanted).max()) < 0.5


def pairs(encoder: Encoder, model: Any) -> list[Pair]:
    made = [
        Pair(chosen=encoder.encode(text, label), rejected=encoder.encode(text, "refill"))
        for text, label in TEXTS
        if label != "refill"
    ]
    return losses.with_margins(model, made, "cpu")


def test_a_preference_is_one_record_and_its_loss_is_dpo(tmp_path: Path) -> None:
    base, _ = load_torch(DEMO_BASE)
    tuned, encoder = made("lora", tmp_path)
    records = pairs(encoder, base)
    loss = losses.preference_loss(0.3)
    engine = engine_for(tuned, loss, "cpu")
    found, values = engine.unit_gradients([[record] for record in records])
    engine.close()
    wanted = torch.stack([plain_gradient(tuned, loss, record) for record in records])
    assert float(apart(found, wanted).max()) < 1e-4

    def log_p(model: Any, record: Encoded) -> torch.Tensor:
        ids = torch.tensor([record.tokens])
        logs = log_softmax(model(input_ids=ids).logits[0, :-1], dim=1)
        start = len(record.prompt) - 1
        return sum(logs[start + place, token] for place, token in enumerate(record.answer))  # type: ignore[return-value]

    with torch.no_grad():
        for record, value in zip(records, values, strict=True):
            ratio = log_p(tuned, record.chosen) - log_p(base, record.chosen)
            ratio = ratio - (log_p(tuned, record.rejected) - log_p(base, record.rejected))
            assert float(value) == pytest.approx(float(-torch.log(torch.sigmoid(0.3 * ratio))), rel=1e-4)


def test_a_distilled_loss_is_the_distance_to_the_teacher_and_the_records_own(tmp_path: Path) -> None:
    teacher, _ = made("lora", tmp_path)
    student, encoder = made("last-layers", tmp_path)
    records = [encoder.encode(*text) for text in TEXTS]
    loss = losses.distilled_loss(teacher.eval(), losses.full_loss, temperature=2.0, weight=0.7)
    batch = collate(records, "cpu")
    with torch.no_grad():
        found = loss(answer_logits(student, batch), batch, records)
        for record, value in zip(records, found, strict=True):
            alone = collate([record], "cpu")
            ours, theirs = answer_logits(student, alone), answer_logits(teacher, alone)
            ours, theirs = log_softmax(ours / 2, 1), log_softmax(theirs / 2, 1)
            far = kl_div(ours, theirs, log_target=True, reduction="none")
            own = cross_entropy(answer_logits(student, alone), torch.tensor(record.answer))
            assert float(value) == pytest.approx(
                0.7 * 4 * float(far.sum(1).mean()) + 0.3 * float(own), rel=1e-4
            )


def a_label_loss(encoder: Encoder, base: Any) -> losses.Loss:
    return losses.label_loss(encoder.trie(), 4096)


def a_distilled_loss(encoder: Encoder, base: Any) -> losses.Loss:
    return losses.distilled_loss(base, losses.full_loss, temperature=1.0, weight=0.5)


@pytest.mark.parametrize(
    ("make", "paired", "dropout"),
    [
        (a_label_loss, False, 0.0),
        (lambda encoder, base: losses.full_loss, False, 0.3),
        (a_distilled_loss, False, 0.0),
        (lambda encoder, base: losses.preference_loss(0.1), True, 0.0),
    ],
    ids=["label", "answer with dropout", "distilled", "preference"],
)
def test_changing_one_record_leaves_every_other_gradient_alone(
    make: Callable[[Encoder, Any], losses.Loss], paired: bool, dropout: float, tmp_path: Path
) -> None:
    base, _ = load_torch(DEMO_BASE)
    tuned, encoder = made("lora", tmp_path, dropout=dropout)
    records: list[Any] = pairs(encoder, base) if paired else [encoder.encode(*text) for text in TEXTS]
    engine = engine_for(tuned, make(encoder, base), "cpu")

    def gradients() -> torch.Tensor:
        torch.manual_seed(7)  # the same dropout both times
        return engine.unit_gradients([[record] for record in records])[0]

    before = gradients()
    other = encoder.encode(TEXTS[0][0], "appointment")
    records[0] = replace(records[0], chosen=other) if paired else other
    gap = apart(before, gradients())
    assert float(gap[0]) > 0.05
    assert float(gap[1:].max()) < 1e-4


def test_a_chats_questions_are_read_but_not_learnt() -> None:
    record = Encoded(prompt=(1, 4), answer=(9, 2, 4, 8, 11, 2), learnt=(True, True, False, False, True, True))
    batch = collate([record, Encoded(prompt=(1,), answer=(7,))], "cpu")
    assert batch.targets.tolist() == [9, 2, 11, 2, 7]
    assert batch.columns.tolist() == [0, 1, 4, 5, 5] and batch.rows.tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("method", ["prompt", "head", "last-layers"])
def test_a_tuned_model_is_saved_as_an_ordinary_one(method: str, tmp_path: Path) -> None:
    tuned, encoder = made(method, tmp_path)
    words = tmp_path / "words" if method == "prompt" else DEMO_BASE
    with torch.no_grad():
        for part in tuned.parameters():
            if part.requires_grad:
                part.add_(torch.randn_like(part), alpha=0.02)
    record = encoder.encode(*TEXTS[1])
    ids = torch.tensor([record.tokens])
    wanted = tuned.eval()(input_ids=ids).logits
    kind = save_weights(tuned, tmp_path / "saved", words=words, settings=Settings(method=method))
    again, tokenizer = load_torch(tmp_path / "saved")
    assert kind == "tuned"
    assert float((again(input_ids=ids).logits - wanted).detach().abs().max()) < 1e-4
    read = encoder_for(tokenizer, tmp_path / "saved", encoder.task, 512)
    assert read.encode(*TEXTS[1]) == record
    if method == "prompt":
        assert record.prompt[1:17] == tuple(range(4096, 4112)), "right behind the beginning token"
        assert not any(isinstance(part, PromptedEmbedding) for part in again.modules())


def test_what_a_base_does_not_have_is_refused() -> None:
    model, _ = load_torch(DEMO_BASE)
    for settings in (
        Settings(layers=9),
        Settings(targets=("nothing",)),
        Settings(method="full", dropout=0.1),
    ):
        with pytest.raises(ConfigWrong):
            adapt(model, settings)
