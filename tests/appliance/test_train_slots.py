"""The slot engine on other bases and adapters than the shipped ones, against plain autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from appliance.core.errors import PrivacyRefused
from appliance.models.encoding import Encoded
from appliance.train import losses
from appliance.train.engine import check_engine, engine_for
from appliance.train.hooks import HookEngine
from appliance.train.slots import SlotEngine

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "attention_dropout": 0.0,
}
RECORDS = [Encoded(prompt=tuple(range(5, 5 + size)), answer=(7, size, 1)) for size in (3, 9, 4, 12, 6)]


def adapted(config: Any = LlamaConfig, dtype: torch.dtype = torch.float32, **lora: Any) -> Any:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config(**SHAPE)).to(dtype)
    settings = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    tuned = get_peft_model(base, LoraConfig(**{**settings, **lora})).train()
    with torch.no_grad():
        for name, part in tuned.named_parameters():
            if "lora_B" in name:
                part.normal_(0, 0.1)
            if name.endswith("bias"):
                part.normal_(0, 0.1)
    return tuned


def by_autograd(model: Any) -> torch.Tensor:
    """Gradients record by record, without an engine."""
    rows = []
    parts = [part for part in model.parameters() if part.requires_grad]
    for record in RECORDS:
        batch = losses.collate([record], "cpu")
        loss = losses.full_loss(losses.answer_logits(model, batch), batch, [record]).sum()
        rows.append(torch.cat([grad.reshape(-1) for grad in torch.autograd.grad(loss, parts)]))
    return torch.stack(rows)


def gap(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(((found - wanted).norm(dim=1) / wanted.norm(dim=1)).max())


@pytest.mark.parametrize(
    "build",
    [
        {},
        {"config": Qwen2Config},
        {"use_rslora": True, "lora_alpha": 16},
        {"target_modules": "all-linear"},
    ],
    ids=["llama", "biased base", "rslora", "every linear"],
)
def test_gradients_are_those_of_autograd(build: dict[str, Any]) -> None:
    model = adapted(**build)
    wanted = by_autograd(model)
    engine = SlotEngine(model, losses.full_loss, "cpu")
    found, _ = engine.unit_gradients([[record] for record in RECORDS])
    assert gap(found, wanted) < 1e-5
    engine.close()
    assert gap(by_autograd(model), wanted) < 1e-6, "peft's own forward is back"


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_layers_give_the_same_gradients(reentrant: bool) -> None:
    model = adapted()
    wanted = by_autograd(model)
    model.enable_input_require_grads()
    model.get_base_model().activation_checkpointing_enable({"use_reentrant": reentrant})
    engine = SlotEngine(model, losses.full_loss, "cpu")
    found, _ = engine.unit_gradients([[record] for record in RECORDS])
    assert gap(found, wanted) < 1e-5


def test_a_bfloat16_base_gives_what_the_hooks_give() -> None:
    model = adapted(dtype=torch.bfloat16)
    hooks = HookEngine(model, losses.full_loss, "cpu")
    wanted, _ = hooks.unit_gradients([[record] for record in RECORDS])
    hooks.close()
    found, _ = SlotEngine(model, losses.full_loss, "cpu").unit_gradients([[record] for record in RECORDS])
    assert found.dtype == torch.float32
    assert gap(found, wanted) < 0.05


def test_dropout_keeps_records_apart() -> None:
    model = adapted(lora_dropout=0.5)
    engine = SlotEngine(model, losses.full_loss, "cpu")
    changed = [Encoded(prompt=RECORDS[0].prompt, answer=(9, 9, 1)), *RECORDS[1:]]
    rows = []
    for records in (RECORDS, changed):
        torch.manual_seed(3)
        rows.append(engine.unit_gradients([[record] for record in records])[0])
    assert gap(rows[0][1:], rows[1][1:]) < 1e-5
    assert gap(rows[0][:1], rows[1][:1]) > 0.1


@pytest.mark.parametrize(
    "lora",
    [
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"lora_bias": True, "config": Qwen2Config, "target_modules": ["q_proj"]},
    ],
    ids=["dora", "modules_to_save", "lora_bias"],
)
def test_adapters_whose_gradients_it_does_not_hold_are_refused(lora: dict[str, Any]) -> None:
    with pytest.raises(PrivacyRefused, match="cannot be trained privately"):
        SlotEngine(adapted(**lora), losses.full_loss, "cpu")


def test_a_second_adapter_is_refused() -> None:
    model = adapted()
    model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.base_model.set_adapter(["default", "other"])
    with pytest.raises(PrivacyRefused, match="one adapter"):
        SlotEngine(model, losses.full_loss, "cpu")


def test_what_is_not_lora_of_a_linear_goes_to_the_hooks() -> None:
    assert isinstance(engine_for(adapted(), losses.full_loss, "cpu"), SlotEngine)
    model = adapted(modules_to_save=["lm_head"])
    wanted = by_autograd(model)
    engine = engine_for(model, losses.full_loss, "cpu")
    assert isinstance(engine, HookEngine)
    found, _ = engine.unit_gradients([[record] for record in RECORDS])
    engine.close()
    assert gap(found, wanted) < 1e-4


def test_an_engine_that_mixes_records_is_refused() -> None:
    def batch_mean(logits: torch.Tensor, batch: losses.Batch, records: Any) -> torch.Tensor:
        """The batch loss of transformers, in our shape."""
        return losses.full_loss(logits, batch, records) / batch.size

    with pytest.raises(PrivacyRefused, match="depends on the others"):
        check_engine(engine_for(adapted(), batch_mean, "cpu"), RECORDS[:2])
