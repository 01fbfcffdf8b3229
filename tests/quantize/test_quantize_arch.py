"""Every architecture is the model that transformers computes, and a fault in its plan fails the proof."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers
from quantize_support import FAMILIES, changed, edit_json, faults, make_adapter, make_model

from appliance.core.errors import ModelRejected
from appliance.core.home import open_home
from appliance.core.job import Job
from appliance.models.importing import import_base
from quantize import convert as convert_module
from quantize.arch import ARCHITECTURES, plan
from quantize.convert import convert
from quantize.job import run
from quantize.layout import Plan, Value
from quantize.lora import open_adapter
from quantize.origin import check_base
from quantize.source import open_checkpoint

BF16 = {"dtype": "bfloat16", "shard": "60KB"}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e3}
LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0},
    **{"high_freq_factor": 4.0, "original_max_position_embeddings": 64},
}
SLIDES = {"sliding_attention": {"rope_type": "default", "rope_theta": 500.0}}
K_NORM = "model.layers.1.self_attn.k_norm.weight"
CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", BF16 | {"attention_bias": True, "mlp_bias": True, "head_dim": 24, "rope_parameters": LLAMA3}),
    ("llama", {"tie_word_embeddings": True, "pre": "smollm", "rope_parameters": LINEAR}),
    ("mistral", BF16),
    ("mistral", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    ("qwen2", BF16 | {"tie_word_embeddings": True}),
    ("qwen2", {"rope_parameters": LINEAR, "num_hidden_layers": 4}),
    ("qwen3", BF16),
    ("qwen3", {"tie_word_embeddings": True, "dtype": "float16"}),
    ("phi3", BF16),
    ("phi3", {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 5e3},
              "partial_rotary_factor": 0.75}),
    ("gemma2", BF16),
    ("gemma2", {"layer_types": ["full_attention", "full_attention", "sliding_attention"], "rope_theta": 5e3}),
    ("gemma3", BF16),
    ("gemma3", {"tie_word_embeddings": False, "final_logit_softcapping": 20.0,
                "rope_parameters": SLIDES | {"full_attention": LINEAR}}),
    ("gemma3", {"layer_types": ["full_attention"] * 3}),
]  # fmt: skip


@pytest.mark.parametrize(("family", "config"), CASES)
def test_the_f32_file_is_the_model(tmp_path: Path, family: str, config: dict[str, Any]) -> None:
    base = make_model(tmp_path / "base", family=family, **config)
    if config.get("shard"):
        assert (base / "model.safetensors.index.json").exists()
    figures, found = faults(base, tmp_path)
    assert found == []
    assert figures["logits"]["kl_mean"] <= (1e-6 if family.startswith("gemma") else 1e-8)
    assert figures["logits"]["same_top"] == 1.0


def _without(made: Plan, part: str) -> Plan:
    left = tuple(tensor for tensor in made.tensors if not tensor.name.endswith(part))
    assert len(left) < len(made.tensors)
    return replace(made, tensors=left)


def _with_key(made: Plan, key: str, value: Value) -> Plan:
    assert made.hyperparameters[key] != value
    return replace(made, hyperparameters=made.hyperparameters | {key: value})


@pytest.mark.parametrize(
    ("family", "fault"),
    [
        ("llama", lambda made: changed(made, "blk.1.attn_q.weight", heads=0)),
        ("llama", lambda made: changed(made, "blk.1.attn_k.weight", heads=0)),
        ("llama", lambda made: changed(made, "blk.0.attn_k.bias", heads=0)),
        ("llama", lambda made: _without(made, "blk.1.attn_v.bias")),
        ("llama", lambda made: _without(made, "blk.1.attn_output.bias")),
        ("mistral", lambda made: changed(made, "blk.0.attn_q.weight", heads=2)),
        ("qwen2", lambda made: changed(made, "blk.1.attn_q.weight", heads=4)),
        ("qwen2", lambda made: _without(made, "blk.1.attn_k.bias")),
        ("qwen3", lambda made: changed(made, "blk.1.attn_q_norm.weight", source=K_NORM)),
        ("phi3", lambda made: changed(made, "blk.1.attn_qkv.weight", heads=8)),
        ("phi3", lambda made: changed(made, "blk.1.ffn_up.weight", heads=1)),
        ("gemma2", lambda made: changed(made, "blk.2.post_ffw_norm.weight", shift=0.0)),
        ("gemma2", lambda made: changed(made, "output_norm.weight", shift=0.0)),
        ("gemma2", lambda made: _with_key(made, "attention.sliding_window", 41)),
        ("gemma2", lambda made: _with_key(made, "attn_logit_softcapping", 40.0)),
        ("gemma2", lambda made: _with_key(made, "final_logit_softcapping", 40.0)),
        ("gemma3", lambda made: changed(made, "blk.1.attn_k_norm.weight", shift=0.0)),
        ("gemma3", lambda made: _with_key(made, "attention.sliding_window_pattern", [True] * 3)),
        ("gemma3", lambda made: _with_key(made, "rope.freq_base_swa", 1e6)),
    ],
)  # fmt: skip
def test_a_fault_in_the_plan_fails_the_proof(
    bases: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    fault: Callable[[Plan], Plan],
) -> None:
    base = bases(family)
    monkeypatch.setattr(convert_module, "plan", lambda checkpoint: fault(plan(checkpoint)))
    assert any("F32 logits: kl_mean" in found for found in faults(base, tmp_path)[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_base_gives_the_same_bytes_in_any_chunks(
    bases: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    checkpoint = open_checkpoint(bases(family))
    files = [tmp_path / f"{name}.gguf" for name in "abc"]
    for number, file in enumerate(files):
        if number == 2:
            monkeypatch.setattr(convert_module, "_CHUNK", 100)
        convert(checkpoint, file, "F16", name="t")
    assert files[0].read_bytes() == files[1].read_bytes() == files[2].read_bytes()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("tuned", [False, True])
def test_memory_is_bounded_by_a_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, tuned: bool
) -> None:
    base = make_model(tmp_path / "base", dtype="bfloat16", vocab_size=60_000, num_hidden_layers=1)
    targets = {"target_modules": ["lm_head"]}
    adapter = make_adapter(base, tmp_path / "adapter", **targets) if tuned else None
    checkpoint = open_checkpoint(base)
    merged = open_adapter(adapter, checkpoint) if adapter else None
    (tensor,) = (tensor for tensor in plan(checkpoint).tensors if tensor.name == "output.weight")
    monkeypatch.setattr(convert_module, "_CHUNK", 100_000)
    tracemalloc.start()
    seen = sum(chunk.size for chunk in convert_module._chunks(checkpoint, tensor, kind, merged))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == 60_000 * 64
    adapters = 3 * 60_000 * 4 * 4 if tuned else 0
    assert peak < 6 * 400_000 + adapters < 4 * seen


def _refusals() -> list[tuple[str, dict[str, Any], str]]:
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
    long = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    return [
        ("llama", {"architectures": ["MixtralForCausalLM"]}, "MixtralForCausalLM"),
        ("qwen3", {"architectures": ["Qwen3MoeForCausalLM"]}, "Qwen3MoeForCausalLM"),
        ("gemma3", {"architectures": ["Gemma3ForConditionalGeneration"]}, "Gemma3ForConditionalGeneration"),
        ("gemma3", {"model_type": "gemma3"}, "model_type of Gemma3ForCausalLM = gemma3"),
        ("llama", {"rope_scaling": yarn}, "rope type = yarn"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope type = dynamic"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("llama", {"rope_scaling": {**LINEAR, "factor": 0}}, "rope factor = 0"),
        ("llama", {"rope_scaling": "yarn"}, "config.json cannot be used"),
        ("llama", {"num_hidden_layers": 10**15}, "num_hidden_layers"),
        ("mistral", {"hidden_act": "gelu"}, "hidden_act = gelu"),
        ("qwen2", {"rope_scaling": yarn}, "rope type = yarn"),
        ("qwen2", {"rope_scaling": LLAMA3}, "rope type = llama3"),
        ("qwen2", {"head_dim": 24}, "head_dim = 24"),
        ("qwen3", {"attention_bias": True}, "attention_bias"),
        ("phi3", {"rope_scaling": long}, "rope type = longrope"),
        ("phi3", {"rope_scaling": {**long, "type": "su"}}, "rope type = su"),
        ("phi3", {"rope_parameters": LINEAR}, "rope type = linear"),
        ("phi3", {"rope_parameters": None, "partial_rotary_factor": 0.1}, "partial_rotary_factor"),
        ("gemma2", {"query_pre_attn_scalar": 48}, "query_pre_attn_scalar = 48"),
        ("gemma2", {"tie_word_embeddings": False}, "tie_word_embeddings"),
        ("gemma2", {"attn_logit_softcapping": None}, "attn_logit_softcapping"),
        ("gemma2", {"final_logit_softcapping": 0}, "final_logit_softcapping"),
        ("gemma2", {"hidden_activation": "gelu"}, "hidden_activation"),
        ("gemma2", {"layer_types": ["chunked_attention"] * 3}, "layer_types"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("gemma3", {"sliding_window": None}, "sliding_window"),
        ("gemma3", {"rope_parameters": {"full_attention": yarn}}, "rope type = yarn"),
        ("gemma3", {"rope_parameters": {"sliding_attention": LINEAR}}, "rope type = linear"),
    ]


@pytest.mark.parametrize(("family", "changes", "words"), _refusals())
def test_what_llama_cpp_computes_otherwise_is_refused_by_name(
    bases: Callable[[str], Path], family: str, changes: dict[str, Any], words: str
) -> None:
    checkpoint = open_checkpoint(bases(family))
    with pytest.raises(ModelRejected, match=words):
        plan(replace(checkpoint, config=checkpoint.config | changes))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_damaged_config_is_read_or_refused(bases: Callable[[str], Path], family: str) -> None:
    checkpoint = open_checkpoint(bases(family))
    odd = (None, True, -1, 0, 7, 0.5, float("inf"), float("nan"), 10**400, "x", [], ["x"], {}, {"x": 1})
    read = 0
    for key in [*checkpoint.config, "rope_scaling", "rope_theta", "head_dim"]:
        nested = checkpoint.config[key] if isinstance(checkpoint.config.get(key), dict) else {}
        values = [*odd, *({**nested, inner: value} for inner in nested for value in odd)]
        values += [{**LLAMA3, inner: value} for inner in LLAMA3 for value in odd if key == "rope_scaling"]
        for value in values:
            try:
                plan(replace(checkpoint, config=checkpoint.config | {key: value}))
                read += 1
            except ModelRejected:
                pass
    assert read > 50


def test_rope_scaling_counts_before_rope_parameters(bases: Callable[[str], Path]) -> None:
    checkpoint = open_checkpoint(bases("llama"))
    found = plan(replace(checkpoint, config=checkpoint.config | {"rope_scaling": LINEAR})).hyperparameters
    assert found["rope.scaling.factor"] == 4.0 and found["rope.freq_base"] == 5e3


@pytest.mark.parametrize(
    ("family", "changes", "context"),
    [
        ("mistral", {"sliding_window": 99}, 99),
        ("qwen2", {"sliding_window": 99}, 640),
        ("qwen3", {"sliding_window": 99, "use_sliding_window": True}, 99),
        ("phi3", {"sliding_window": 99}, 99),
    ],
)
def test_a_sliding_window_that_llama_cpp_lacks_becomes_the_context(
    bases: Callable[[str], Path], family: str, changes: dict[str, Any], context: int
) -> None:
    checkpoint = open_checkpoint(bases(family))
    made = plan(replace(checkpoint, config=checkpoint.config | changes))
    assert made.hyperparameters["context_length"] == context


def test_what_config_json_leaves_out_is_what_transformers_takes() -> None:
    for name, known in ARCHITECTURES.items():
        theirs = getattr(transformers, name).config_class()
        assert theirs.model_type == known.model_type
        own = getattr(theirs, "default_theta", None)
        ropes = {"rope_theta": "global", "rope_local_base_freq": "local"}
        for key, value in known.defaults.items():
            window = key == "sliding_window" and "use_sliding_window" in known.defaults
            wanted = value if window else own[ropes[key]] if key in ropes else getattr(theirs, key)
            assert value == wanted, (name, key)


def test_a_tied_output_that_is_stored_again_is_left_out(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    base = make_model(tmp_path / "base", family="gemma2")
    weights = load_file(base / "model.safetensors")
    save_file(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}, base / "model.safetensors")
    config = json.loads((base / "config.json").read_text())
    del config["tie_word_embeddings"]  # Google's own files do not have it
    (base / "config.json").write_text(json.dumps(config))
    assert faults(base, tmp_path)[1] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_is_imported_or_refused_before_it_is_copied(
    bases: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    home = open_home(tmp_path / "home")
    model = import_base(home, bases(family), family, check=check_base, who="t")
    assert model.facts["architecture"] == [f"{FAMILIES[family][0]}ForCausalLM"]
    folder = tmp_path / "odd"
    shutil.copytree(bases(family), folder)
    edit_json(folder / "config.json", hidden_act="relu", hidden_activation="relu")
    with pytest.raises(ModelRejected, match=r"hidden_act.* = relu"):
        import_base(home, folder, "odd", check=check_base, who="t")
    assert not (home.models / "odd").exists()


@pytest.mark.slow
def test_the_job_proves_a_gemma_within_its_own_limits(bases: Callable[[str], Path], tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    import_base(home, bases("gemma3"), "gemma", check=check_base, who="t")
    folder = home.jobs / "one"
    folder.mkdir()
    job = Job(id="one", kind="quantize", folder=folder, home=home)
    (file,) = run({"model": "gemma", "types": ["F16"]}, job)["files"]
    assert file["proof"]["limits"]["F32"]["kl_mean"] == 1e-6
    assert 1e-9 < file["proof"]["logits"]["F32"]["kl_mean"] <= 1e-6
