"""Bases of every supported architecture: what is trained, and its per-record gradients."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from appliance.core.errors import ConfigWrong, PrivacyRefused
from appliance.models.encoding import Encoded
from appliance.train import losses
from appliance.train.adapt import adapt
from appliance.train.engine import engine_for
from appliance.train.hooks import HookEngine
from appliance.train.memory import memory, read_shape, trained_parameters
from appliance.train.settings import Settings
from appliance.train.slots import SlotEngine
from appliance.train.soft import fold_prompt

CHILD = Path(__file__).parent / "memory_child.py"
WORDS = 97
SHAPE: dict[str, Any] = {
    **{"vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64},
    **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "attention_dropout": 0.0},
    **{"initializer_range": 0.2, "sliding_window": 6},
}
GEMMA = {"head_dim": 12, "query_pre_attn_scalar": 12}
FAMILIES: dict[str, dict[str, Any]] = {
    "Mistral": {},
    "Qwen2": {},
    "Qwen3": {"head_dim": 12},
    "Phi3": {},
    "Gemma2": GEMMA,
    "Gemma3": GEMMA,
}
RECORDS = [Encoded(prompt=tuple(range(5, 5 + size)), answer=(7, size, 1)) for size in (3, 9, 4, 12)]


def base_of(family: str) -> Any:
    config = getattr(transformers, "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config")
    torch.manual_seed(0)
    return getattr(transformers, f"{family}ForCausalLM")(config(**SHAPE, **FAMILIES[family]))


def gap(model: Any, engine: Any, records: list[Encoded]) -> float:
    """The largest relative distance of an engine's gradients from those of one record after the other."""
    found, _ = engine.unit_gradients([[record] for record in records])
    engine.close()
    parts = [part for part in model.parameters() if part.requires_grad]
    rows = []
    for record in records:
        batch = losses.collate([record], "cpu")
        loss = losses.full_loss(losses.answer_logits(model, batch), batch, [record]).sum()
        rows.append(torch.cat([grad.reshape(-1) for grad in torch.autograd.grad(loss, parts)]))
    wanted = torch.stack(rows)
    return float(((found - wanted).norm(dim=1) / wanted.norm(dim=1)).max())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["lora", "last-layers", "head"])
def test_gradients_are_those_of_autograd(family: str, method: str) -> None:
    base = base_of(family)
    if (family, method) == ("Gemma2", "head"):
        with pytest.raises(ConfigWrong, match="Gemma 2"):
            adapt(base, Settings(method=method))
        return
    model = adapt(base, Settings(method=method, freeze_a=False))
    with torch.no_grad():
        for name, part in model.named_parameters():
            if "lora_B" in name:
                part.normal_(0, 0.1)
    engine = engine_for(model, losses.full_loss, "cpu")
    assert isinstance(engine, SlotEngine if method == "lora" else HookEngine)
    assert gap(model, engine, RECORDS) < 1e-5


@pytest.mark.parametrize("family", ["Gemma2", "Gemma3"])
def test_gemmas_embedding_has_no_gradients_of_single_records(family: str) -> None:
    model = adapt(base_of(family), Settings(method="full"))
    with pytest.raises(PrivacyRefused, match="without per-record gradients"):
        engine_for(model, losses.full_loss, "cpu")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["lora", "last-layers", "full"])
def test_the_trained_parameters_are_those_of_torch(tmp_path: Path, family: str, method: str) -> None:
    model = base_of(family)
    model.save_pretrained(tmp_path)
    settings = Settings(method=method)
    tuned = adapt(model, settings)
    count = sum(part.numel() for part in tuned.parameters() if part.requires_grad)
    assert trained_parameters(read_shape(tmp_path), settings) == count


def test_where_q_k_v_are_one_matrix_the_whole_of_it_is_trained() -> None:
    tuned = adapt(base_of("Phi3"), Settings(targets=("q_proj", "v_proj", "gate_proj", "down_proj")))
    trained = {name.split(".")[-4] for name, part in tuned.named_parameters() if part.requires_grad}
    assert trained == {"qkv_proj", "gate_up_proj", "down_proj"}
    with pytest.raises(ConfigWrong, match=r"no layers named c_attn") as problem:
        adapt(base_of("Phi3"), Settings(targets=("q_proj", "c_attn")))
    assert "qkv_proj" in problem.value.hint


def test_capped_scores_and_wide_heads_are_counted(tmp_path: Path) -> None:
    sizes = {}
    for family in ("Gemma2", "Gemma3", "Mistral"):
        base_of(family).save_pretrained(tmp_path / family)
        shape = read_shape(tmp_path / family)
        sizes[family] = memory(shape, Settings(), rows=1, width=64, labelled=4).activations
    assert sizes["Gemma3"] - sizes["Mistral"] == 2 * 64 * 4 * 6 * (4 * 12 - 32)
    assert sizes["Gemma2"] - sizes["Gemma3"] == 2 * 64 * 4 * 4 * 4 * 64


def test_a_soft_prompt_is_scaled_as_gemmas_words_are(tmp_path: Path) -> None:
    model = adapt(base_of("Gemma3"), Settings(method="prompt", prompt_tokens=3), WORDS)
    ids = torch.tensor([[WORDS, WORDS + 1, WORDS + 2, 5, 6]])
    model.eval()
    trained = model(ids).logits
    fold_prompt(model)
    assert torch.equal(model(ids).logits, trained)
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.allclose(again(ids).logits, trained, atol=1e-5)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("rows", "width"), [(8, 128), (2, 512)])
def test_the_estimate_is_near_the_real_peak(tmp_path: Path, family: str, rows: int, width: int) -> None:
    config = getattr(transformers, "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config")
    sizes = {"hidden_size": 640, "intermediate_size": 1792, "num_hidden_layers": 16, "vocab_size": 32_000}
    heads = {"num_attention_heads": 10, "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": 2}
    wide = {"head_dim": 128} if "head_dim" in FAMILIES[family] else {}
    model = getattr(transformers, f"{family}ForCausalLM")(config(**sizes, **heads, **wide))
    model.save_pretrained(tmp_path)
    command = [sys.executable, str(CHILD), "{}", str(tmp_path), str(rows), str(width)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert 1 / 1.2 < found["estimate"] / found["peak"] < 1.2
