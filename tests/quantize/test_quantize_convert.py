from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from quantize_support import edit_json, faults, make_adapter, make_model

from appliance.core.errors import ModelRejected
from appliance.models import importing
from quantize import arch, bytelevel, lora, tokenizer
from quantize import convert as convert_module
from quantize.convert import clean_name, convert
from quantize.header import read_gguf
from quantize.pretokenizer import PRE_TOKENIZERS
from quantize.source import open_checkpoint

LLAMA3_ROPE = {
    "rope_theta": 10000.0,
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("F32", {}),
        ("F32", {"tie_word_embeddings": True, "pre": "smollm", "num_key_value_heads": 4}),
        ("F32", {"attention_bias": True, "mlp_bias": True, "head_dim": 32, "pre": "llama-bpe"}),
        ("F32", {"rope_parameters": LLAMA3_ROPE, "pre": "smaug-bpe"}),
        ("F16", {"dtype": "bfloat16", "shard": "100KB", "pre": "qwen2", "normalizer": "NFC"}),
        ("F32", {"hidden_size": 192, "dtype": "float16", "pre": "qwen35"}),
    ],
)
def test_the_file_is_the_model(tmp_path: Path, kind: str, config: dict) -> None:
    base = make_model(tmp_path / "base", **config)
    if config.get("shard"):
        assert (base / "model.safetensors.index.json").exists()
    figures, found = faults(base, tmp_path, kind)
    assert found == []
    assert figures["tokens"]["excused"] == 0
    assert figures["template"]["rendered"] == figures["template"]["chats"] == 6


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    return make_adapter(base, base.parent / "adapter", use_rslora=True)


def test_an_adapter_is_merged_at_its_own_scale(base: Path, adapter: Path, tmp_path: Path) -> None:
    assert faults(base, tmp_path, adapter=adapter)[1] == []
    assert faults(base, tmp_path, adapter=adapter, kind="F16")[1] == []


def test_a_wrong_adapter_scale_fails(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "_scale", lambda config: config["lora_alpha"] / config["r"])  # not rsLoRA's
    assert any("F32 logits" in fault for fault in faults(base, tmp_path, adapter=adapter)[1])


def test_a_faint_adapter_left_out_fails(base: Path, tmp_path: Path) -> None:
    faint = make_adapter(base, tmp_path / "faint", std=1e-3)
    whole = tmp_path / "base.gguf"
    convert(open_checkpoint(base), whole, "F32", name="t")
    assert any("F32 logits" in fault for fault in faults(base, tmp_path, adapter=faint, file=whole)[1])


def test_rows_left_in_place_fail(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "pair_halves", lambda values, heads: values)
    assert any("F16 logits" in fault for fault in faults(base, tmp_path, "F16")[1])


def test_another_pre_tokenizer_fails(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytelevel, "PRE_TOKENIZERS", dict.fromkeys(PRE_TOKENIZERS, "llama-bpe"))
    assert any("token ids differ" in fault for fault in faults(base, tmp_path)[1])


def test_another_chat_template_fails(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = convert_module.add_vocabulary
    monkeypatch.setattr(
        convert_module,
        "add_vocabulary",
        lambda writer, words, template: add(writer, words, template.replace("| trim", "")),
    )
    assert any("rendered otherwise" in fault for fault in faults(base, tmp_path)[1])


def test_another_end_token_fails(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "_specials", lambda checkpoint, ids: {"bos": 1, "eos": 2, "pad": 0})
    found = faults(base, tmp_path)[1]
    assert any("EOS" in fault for fault in found)


def test_the_same_input_gives_the_same_bytes(base: Path, adapter: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(base)
    files = [tmp_path / name for name in ("a.gguf", "b.gguf")]
    for file in files:
        merged = lora.open_adapter(adapter, checkpoint)
        convert(checkpoint, file, "F16", name="t", adapter=merged, facts={"cloister.task": "{}"})
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_base_is_imported_exactly_when_its_architecture_can_be_converted() -> None:
    assert set(importing.ARCHITECTURES) == set(arch.ARCHITECTURES)


def test_row_chunks_change_nothing(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(base)
    convert(checkpoint, tmp_path / "whole.gguf", "BF16", name="t")
    monkeypatch.setattr(convert_module, "_CHUNK", 100)
    convert(checkpoint, tmp_path / "parts.gguf", "BF16", name="t")
    assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "parts.gguf").read_bytes()


def test_the_header_says_what_is_inside(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    facts = {"cloister.task": json.dumps({"kind": "answer"})}
    convert(open_checkpoint(base), file, "F16", name="My-Phi3 demo", facts=facts)
    header = read_gguf(file)
    assert header.values["general.name"] == "My Phi 3 demo"
    assert header.values["cloister.task"] == '{"kind": "answer"}'
    assert header.histogram == {"F16": 16}
    assert 16 < header.bits_per_weight < 16.1
    assert clean_name("///") == "model"


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("config.json", {"architectures": ["PhiForCausalLM"]}, "PhiForCausalLM"),
        ("config.json", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "yarn"),
        ("config.json", {"hidden_act": "gelu"}, "gelu"),
        ("config.json", {"num_hidden_layers": 3}, "missing"),
        ("config.json", {"num_hidden_layers": 1}, "unknown"),
        ("config.json", {"num_attention_heads": 8}, "config.json says"),
        ("config.json", {"vocab_size": 10}, "config.json says"),
        ("config.json", {"hidden_size": "wide"}, "hidden_size"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Metaspace"}}, "tokenizer"),
        ("tokenizer.json", {"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        ("tokenizer.json", {"model": {"type": "Unigram"}}, "damaged"),
        ("tokenizer.json", {"added_tokens": [{"id": 5000, "content": "x"}]}, "5000"),
        ("tokenizer.json", {"added_tokens": [{"id": 900, "content": "<s>"}]}, "twice"),
        ("tokenizer.json", {"model": {"type": "BPE"}}, "damaged"),
    ],
)
def test_what_cannot_be_proven_is_refused(
    base: Path, tmp_path: Path, file: str, changes: dict, words: str
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for source in base.iterdir():
        (copy / source.name).write_bytes(source.read_bytes())
    edit_json(copy / file, **changes)
    with pytest.raises(ModelRejected, match=words):
        convert(open_checkpoint(copy), tmp_path / "x.gguf", "F16", name="t")
    assert not list(tmp_path.glob("*.gguf*"))


def test_weights_out_of_range_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    base = make_model(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"].copy()
    weights["model.layers.0.mlp.up_proj.weight"] = np.full((96, 64), 7e4, np.float32)
    save_file(weights, base / "model.safetensors")
    checkpoint = open_checkpoint(base)
    with pytest.raises(ModelRejected, match="too large for F16"):
        convert(checkpoint, tmp_path / "x.gguf", "F16", name="t")
    convert(checkpoint, tmp_path / "x.gguf", "BF16", name="t")


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 2}},
        {"alpha_pattern": {"q_proj": 2}},
        {"init_lora_weights": "pissa"},
        {"peft_type": "IA3"},
        {"r": 8},
        {"lora_alpha": None},
        {"something_new": True},
    ],
)
def test_other_kinds_of_adapter_are_refused(base: Path, adapter: Path, tmp_path: Path, changes: dict) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for source in adapter.iterdir():
        (copy / source.name).write_bytes(source.read_bytes())
    edit_json(copy / "adapter_config.json", **changes)
    with pytest.raises(ModelRejected, match="cannot be merged"):
        lora.open_adapter(copy, open_checkpoint(base))


def test_an_adapter_of_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", intermediate_size=128)
    with pytest.raises(ModelRejected, match="does not fit the base"):
        lora.open_adapter(adapter, open_checkpoint(other))
