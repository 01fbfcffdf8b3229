"""The private trainer: one unit's influence is bounded, whatever the others do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from appliance.core.errors import PrivacyRefused
from appliance.models.encoding import Encoded, Encoder
from appliance.models.importing import DEMO_BASE
from appliance.models.load import encoder_for, load_torch
from appliance.models.task import PROMPT, Task
from appliance.privacy.noise import LATTICE, Keystream
from appliance.train import clip, loop, losses
from appliance.train.adapt import add_lora
from appliance.train.engine import Engine
from appliance.train.hooks import HookEngine
from appliance.train.material import sampled_together
from appliance.train.plan import Plan
from appliance.train.sampling import pack, poisson_units, some_records
from appliance.train.settings import Settings
from appliance.train.slots import SlotEngine

LABELS = ("billing", "refill", "appointment")
TEXTS = [
    ("My bill is wrong again.", "billing"),
    ("I need more of my tablets before the weekend, please call me back about it.", "refill"),
    ("Can I come in on Tuesday?", "appointment"),
    ("Why was I charged twice for one visit?", "billing"),
    ("Could you move my visit to next month because I will be away until then?", "appointment"),
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    _, tokenizer = load_torch(DEMO_BASE)
    return encoder_for(tokenizer, DEMO_BASE, Task(kind="label", prompt=PROMPT, labels=LABELS), 512)


@pytest.fixture
def records(encoder: Encoder) -> list[Encoded]:
    return [encoder.encode(text, answer) for text, answer in TEXTS]


@pytest.fixture
def tuned() -> Any:
    model, _ = load_torch(DEMO_BASE)
    adapted = add_lora(model, Settings(freeze_a=False)).train()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, part in adapted.named_parameters():
            if part.requires_grad and "lora_B" in name:
                part.normal_(0, 0.02)
    return adapted


@pytest.fixture(params=[SlotEngine, HookEngine])
def engine(request: pytest.FixtureRequest, tuned: Any, encoder: Encoder) -> Iterator[Engine]:
    """Every promise below is held by both engines."""
    made: Engine = request.param(tuned, losses.label_loss(encoder.trie(), 4096), "cpu")
    yield made
    made.close()


def plain_gradient(model: Any, encoder: Encoder, group: list[Encoded]) -> torch.Tensor:
    """The gradient of a unit's mean loss by ordinary autograd, record by record, no hooks."""
    loss = losses.label_loss(encoder.trie(), 4096)
    total = 0.0
    for record in group:
        batch = losses.collate([record], "cpu")
        output = model(input_ids=batch.tokens, attention_mask=batch.mask, use_cache=False).logits
        total = (
            total
            + loss(
                output[batch.rows, batch.columns - batch.keep + batch.tokens.shape[1]], batch, [record]
            ).sum()
        )
    parts = [part for part in model.parameters() if part.requires_grad]
    return torch.cat([grad.reshape(-1) for grad in torch.autograd.grad(total / len(group), parts)])


def test_unit_gradients_equal_a_plain_loop(
    engine: Engine, tuned: Any, encoder: Encoder, records: list[Encoded]
) -> None:
    groups = [[records[0], records[1]], [records[2]], [records[3], records[4]]]
    found, _ = engine.unit_gradients(groups)
    engine.close()
    assert found.shape[1] == 24_576
    for row, group in zip(found, groups, strict=True):
        expected = plain_gradient(tuned, encoder, group)
        assert float((row - expected).norm() / expected.norm()) < 1e-4


def test_the_clipped_sum_is_that_of_opacus(
    engine: Engine, tuned: Any, encoder: Encoder, records: list[Encoded]
) -> None:
    from opacus.grad_sample.grad_sample_module import GradSampleHooks
    from opacus.optimizers import DPOptimizer

    ours, _ = clip.clip_to_lattice(engine.unit_gradients([[record] for record in records])[0], 0.5)
    engine.close()
    hooks = GradSampleHooks(tuned, batch_first=True, loss_reduction="sum")
    parts = [part for part in tuned.parameters() if part.requires_grad]
    optimizer = DPOptimizer(
        torch.optim.SGD(parts, lr=0.1),
        noise_multiplier=0.0,
        max_grad_norm=0.5,
        expected_batch_size=1,
        loss_reduction="sum",
    )
    batch = losses.collate(records, "cpu")
    loss = losses.label_loss(encoder.trie(), 4096)
    loss(losses.answer_logits(tuned, batch), batch, records).sum().backward()
    optimizer.clip_and_accumulate()
    theirs = torch.cat([part.summed_grad.reshape(-1) for part in parts]).double().numpy()
    hooks.cleanup()
    assert np.linalg.norm(ours * (0.5 / LATTICE) - theirs) < 1e-3 * np.linalg.norm(theirs)


def test_changing_one_record_leaves_every_other_gradient_alone(
    engine: Engine, encoder: Encoder, records: list[Encoded]
) -> None:
    before, _ = engine.unit_gradients([[record] for record in records])
    changed = [encoder.encode(TEXTS[0][0], "refill"), *records[1:]]
    after, _ = engine.unit_gradients([[record] for record in changed])
    gap = (before - after).norm(dim=1) / before.norm(dim=1)
    assert float(gap[0]) > 0.1
    assert float(gap[1:].max()) < 1e-4


def test_clipping_bounds_every_unit_exactly() -> None:
    torch.manual_seed(0)
    rows = torch.randn(50, 300) * torch.logspace(-6, 6, 50)[:, None]
    for row in rows:
        summed, _ = clip.clip_to_lattice(row[None], 0.7)
        assert np.linalg.norm(summed.astype(float)) * (0.7 / LATTICE) <= 0.7
    together, _ = clip.clip_to_lattice(rows, 0.7)
    alone = sum(clip.clip_to_lattice(row[None], 0.7)[0] for row in rows)
    assert np.array_equal(together, alone)


def test_rounding_cannot_lift_a_unit_over_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of equal coordinates that are a hair below a whole lattice step when clipped to the bound."""
    sizes = np.arange(2, 4000)
    short = (np.ceil(LATTICE / sizes**0.5) * sizes**0.5 / LATTICE - 1, sizes)
    hard = [int(size) for gap, size in zip(*short, strict=True) if 0 < gap < 1e-7]

    def over() -> int:
        rows = [torch.full((1, size), scale * size**-0.5) for size in hard for scale in (0.7, 1.0, 3.0)]
        sums = [clip.clip_to_lattice(row, 0.7)[0] for row in rows]
        return sum(sum(int(part) ** 2 for part in row) > LATTICE**2 for row in sums)

    assert over() == 0
    monkeypatch.setattr(clip, "_MARGIN", 0.0)
    assert over() > 0, "the margin is what holds the bound"


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    with pytest.raises(PrivacyRefused):
        clip.clip_to_lattice(torch.tensor([[1.0, float("inf")]]), 1.0)


@pytest.mark.parametrize("kind", [SlotEngine, HookEngine])
def test_anything_trainable_that_is_not_accounted_for_is_refused(
    kind: Any, tuned: Any, encoder: Encoder, records: list[Encoded]
) -> None:
    engine = kind(tuned, losses.label_loss(encoder.trie(), 4096), "cpu")
    engine.parameters.append(torch.nn.Parameter(torch.ones(1)))
    with pytest.raises(PrivacyRefused, match="took no part"):
        engine.unit_gradients([[record] for record in records])
    engine.close()
    tuned.get_base_model().extra = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(PrivacyRefused):
        kind(tuned, losses.label_loss(encoder.trie(), 4096), "cpu")


def test_a_pass_that_failed_half_way_leaves_nothing_behind(
    engine: Engine, tuned: Any, records: list[Encoded]
) -> None:
    groups = [[record] for record in records]
    wanted, _ = engine.unit_gradients(groups)
    first = tuned.get_base_model().model.layers[0]

    def no_room(*_: Any) -> None:
        raise RuntimeError("out of memory")

    for place in (first.register_full_backward_hook(no_room), first.register_forward_hook(no_room)):
        with pytest.raises(RuntimeError, match="out of memory"):
            engine.unit_gradients(groups[:3])
        place.remove()
    found, _ = engine.unit_gradients(groups)
    assert torch.equal(found, wanted)


def private_plan(units: int, noise: float) -> Plan:
    return Plan(
        steps=4,
        learning_rate=1e-2,
        weight_decay=0.1,
        units=units,
        records=units,
        unit="patient",
        sample_rate=0.5,
        sampling="unit",
        expected_batch=units / 2,
        noise_multiplier=noise,
        delta=1e-4,
    )


def test_noise_in_an_update_has_the_promised_size_and_is_never_repeated(
    engine: Engine, records: list[Encoded]
) -> None:
    settings = Settings(max_grad_norm=0.3)
    groups = [[record] for record in records]
    plan = private_plan(len(groups), 40.0)
    first, second = (loop.private_update(engine, groups, plan, settings)() for _ in range(2))
    spread = float(first.gradient.std()) * plan.expected_batch / settings.max_grad_norm  # type: ignore[operator]
    assert spread == pytest.approx(40.0, rel=0.03)
    both = np.corrcoef(first.gradient.numpy(), second.gradient.numpy())[0, 1]
    assert abs(both) < 4 / first.gradient.numel() ** 0.5


def test_without_noise_no_private_run_starts(engine: Engine, records: list[Encoded]) -> None:
    with pytest.raises(PrivacyRefused):
        loop.private_update(engine, [[records[0]]], private_plan(1, 0.0), Settings())


def test_an_empty_sample_still_takes_a_noisy_step(engine: Engine, records: list[Encoded]) -> None:
    plan = private_plan(1, 1.0)
    update = loop.private_update(engine, [[records[0]]], plan, Settings())
    sizes = {found.units: found for found in (update() for _ in range(40))}
    assert set(sizes) == {0, 1}
    assert float(sizes[0].gradient.norm()) > 0


def test_sampling_is_poisson() -> None:
    stream = Keystream()
    sizes = [len(poisson_units(400, 0.25, stream)) for _ in range(400)]
    assert np.mean(sizes) == pytest.approx(100, abs=2.5)
    assert np.var(sizes) == pytest.approx(75, rel=0.35)


def test_packing_keeps_units_whole_and_within_the_budget() -> None:
    rng = np.random.default_rng(0)
    lengths = [rng.integers(5, 60, size=rng.integers(1, 5)).tolist() for _ in range(200)]
    parts = list(pack(lengths, 600))
    assert sorted(place for part in parts for place in part) == list(range(200))
    for part in parts:
        rows = sum(len(lengths[place]) for place in part)
        assert len(part) == 1 or rows * max(max(lengths[place]) for place in part) <= 600


@pytest.mark.parametrize("budget", [1024, 4096, 16384])
def test_large_micro_batches_hold_little_padding(budget: int) -> None:
    rng = np.random.default_rng(1)
    sizes = rng.lognormal(np.log(90), 1.0, 400).clip(8, 512).astype(int).tolist()
    parts = list(pack([[size] for size in sizes], budget))
    padded = [len(part) * max(sizes[place] for place in part) for part in parts]
    real = [sum(sizes[place] for place in part) for part in parts]
    assert sum(padded) <= 1.1 * sum(sizes) and sum(real) == sum(sizes)
    assert all(wide <= 1.1 * own or own < 2048 for wide, own in zip(padded, real, strict=True))
    assert max(padded) <= budget


def test_sampling_records_leaves_out_what_a_unit_has_too_many_of(records: list[Encoded]) -> None:
    units = [records[:3], records[3:4]]
    assert sampled_together(units, Settings(sampling="unit", records_per_unit=2)) == units
    alone = sampled_together(units, Settings(sampling="record", records_per_unit=2))
    assert alone == [[records[0]], [records[1]], [records[3]]]


def test_a_unit_gives_at_most_its_share_of_records() -> None:
    stream = Keystream()
    assert some_records([1, 2], 3, stream) == [1, 2]
    drawn = [tuple(sorted(some_records([1, 2, 3, 4], 2, stream))) for _ in range(200)]
    assert all(len(set(part)) == 2 for part in drawn) and len(set(drawn)) == 6


def test_a_checkpoint_gives_back_weights_moments_and_history(tuned: Any, tmp_path: Path) -> None:
    plan = private_plan(4, 1.0)
    optimiser = loop.Optimiser(tuned, plan)
    size = sum(part.numel() for part in tuned.parameters() if part.requires_grad)
    optimiser.apply(0, torch.randn(size))
    optimiser.save(tmp_path / "c.safetensors", 1, [{"step": 1}])
    step = torch.randn(size)
    optimiser.apply(1, step)
    wanted = [part.detach().clone() for part in tuned.parameters() if part.requires_grad]
    again = loop.Optimiser(tuned, plan)
    assert again.load(tmp_path / "c.safetensors") == (1, [{"step": 1}])
    again.apply(1, step)
    found = [part for part in tuned.parameters() if part.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
