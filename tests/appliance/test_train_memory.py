"""What a run holds in memory: counted exactly where it can be, and near a real process's peak where not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from memory_child import BIG

from appliance.core.errors import ConfigWrong
from appliance.models.importing import DEMO_BASE
from appliance.models.load import load_torch
from appliance.train.memory import Memory, memory, read_shape, trained_parameters
from appliance.train.settings import Settings

SHAPE = read_shape(DEMO_BASE)
CHILD = Path(__file__).parent / "memory_child.py"


def needed(rows: int = 8, width: int = 128, **settings: Any) -> Memory:
    return memory(SHAPE, Settings(**settings), rows=rows, width=width, labelled=4 * rows)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(freeze_a=False, rank=8, targets=("q_proj", "gate_proj", "down_proj")),
        Settings(layers=2, targets=("v_proj",)),
        Settings(method="last-layers"),
        Settings(method="last-layers", layers=2),
        Settings(method="head"),
        Settings(method="full"),
        Settings(method="prompt", prompt_tokens=5),
    ],
    ids=lambda settings: f"{settings.method}-{settings.layers}-{len(settings.targets)}",
)
def test_the_trained_parameters_are_those_of_torch(settings: Settings) -> None:
    from appliance.train.adapt import adapt

    tuned = adapt(load_torch(DEMO_BASE)[0], settings, SHAPE.vocabulary)
    count = sum(part.numel() for part in tuned.parameters() if part.requires_grad)
    assert trained_parameters(SHAPE, settings) == count


def test_an_untied_or_doubly_stored_output_layer_is_counted_once(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    config = json.loads((DEMO_BASE / "config.json").read_bytes())
    tensors = {"model.embed_tokens.weight": torch.zeros(4096, 256), "lm_head.weight": torch.zeros(4096, 256)}
    save_file(tensors, tmp_path / "model.safetensors")
    for tied, count in ((True, 4096 * 256), (False, 2 * 4096 * 256)):
        (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": tied}))
        assert read_shape(tmp_path).parameters == count


def test_layers_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigWrong, match="no layers named c_attn"):
        trained_parameters(SHAPE, Settings(targets=("c_attn",)))
    with pytest.raises(ConfigWrong, match="3 layers, not 4"):
        trained_parameters(SHAPE, Settings(method="last-layers", layers=4))


def test_what_costs_memory_is_seen_to() -> None:
    lora, full = needed(), needed(method="full")
    assert full.total > lora.total and full.moments == 8 * SHAPE.parameters
    assert needed(rows=16).activations == 2 * lora.activations
    assert needed(checkpointing=True).activations < lora.activations
    assert needed(precision="bfloat16").weights < 0.6 * lora.weights
    assert needed(processes=2).total == 2 * lora.total
    assert needed(method="full", private=False).gradients < full.gradients / 8, "no row for each record"
    assert needed(objective="dpo").activations == 2 * lora.activations
    with_teacher = memory(SHAPE, Settings(), rows=8, width=128, labelled=32, teacher=10**9)
    assert with_teacher.weights - lora.weights == 4 * 10**9
    assert replace(lora, update=10**12).total > 10**12 and lora.as_dict()["total"] == lora.total


def measured(base: Path, rows: int, width: int, **settings: Any) -> float:
    """The estimate against the real peak of a process that takes two steps."""
    words = [json.dumps(settings), str(base), str(rows), str(width)]
    done = subprocess.run([sys.executable, CHILD, *words], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return float(found["estimate"] / found["peak"])


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"method": "full"}], ids=["lora", "full"])
def test_the_estimate_is_near_the_real_peak(settings: dict[str, Any]) -> None:
    ratio = measured(DEMO_BASE, 8, 128, **settings)
    assert 1 / 1.4 < ratio < 1.4


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize(
    ("rows", "settings"),
    [
        (8, {}),
        (8, {"private": False}),
        (8, {"checkpointing": True}),
        (8, {"precision": "bfloat16"}),
        (4, {"method": "head"}),
        (2, {"method": "full", "private": False}),
        (1, {"method": "full"}),
    ],
    ids=str,
)
def test_the_estimate_is_near_the_real_peak_of_a_larger_base(
    rows: int, settings: dict[str, Any], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig

    AutoModelForCausalLM.from_config(LlamaConfig(**BIG)).save_pretrained(tmp_path)
    ratio = measured(tmp_path, rows, 128, **settings)
    assert 1 / 1.4 < ratio < 1.4
