"""Models and settings that passed the proof and were not the model once served, or were loosened silently."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantize_support import TEMPLATE, edit_json, faults, make_model
from tokenizer_support import bytelevel, fallback, proof, save

from appliance.core.errors import ConfigWrong, ModelRejected
from quantize import climb
from quantize.arch import plan
from quantize.limits import PARITY, limits_changed, limits_with, shortfalls
from quantize.measure import compare, parity_figures
from quantize.pretokenizer import WHOLE
from quantize.proving import special_strings
from quantize.sentencepiece import read_fallback
from quantize.source import open_checkpoint
from quantize.tokenizer import read_vocabulary
from quantize.verify import judge_tokens
from quantize.vocabulary import Vocabulary
from tui.cli.quantize import _verdict


@pytest.fixture
def plain(tmp_path: Path, bases: Callable[[str], Path]) -> Path:
    """A copy of the tiny Llama, to change."""
    return Path(shutil.copytree(bases("llama"), tmp_path / "base"))


def test_keys_too_large_for_serving_fail_the_f16_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    base = make_model(tmp_path / "base", family="qwen3")
    figures, found = faults(base, tmp_path, "F16")
    assert found == [] and figures["served"]["windows"] >= 4 and figures["served"]["not_finite"] == 0
    weights = load_file(base / "model.safetensors")
    for part, factor in (("k_norm.weight", 1e6), ("q_norm.weight", 1e-6)):
        for name in [name for name in weights if name.endswith(part)]:
            weights[name] = weights[name] * np.float32(factor)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    figures, found = faults(base, tmp_path, "F16")
    assert figures["logits"]["kl_mean"] < 1e-4, "exactly computed it is the model"
    assert found and all(fault.startswith("F16 as served: ") for fault in found)
    assert "logits that are no numbers" in found[0]
    assert figures["served"]["not_finite"] > 0


def test_what_is_no_number_is_said_and_never_the_same() -> None:
    x = np.random.default_rng(0).normal(size=(20, 9)).astype(np.float32)
    y = x.copy()
    y[3] = np.nan
    y[4, 2] = np.inf
    part = compare(y, x)
    assert [i for i in range(20) if not part["finite"][i]] == [3, 4]
    assert not part["same_top"][[3, 4]].any() and part["same_top"][5:].all()
    figures = parity_figures([part])
    assert shortfalls(figures, PARITY["F16"])[0] == "2 of 20 positions have logits that are no numbers"
    assert parity_figures([compare(x, x)])["not_finite"] == 0
    assert "F16 file" in climb._hint([{"not_finite": 0}])
    assert "F16 file" not in climb._hint([{"not_finite": 0}, {"not_finite": 5}])


def test_every_added_token_that_is_read_otherwise_is_tried(tmp_path: Path) -> None:
    from tokenizers import AddedToken

    made = bytelevel((WHOLE,))
    made.add_tokens([AddedToken(f"<x{n}>", normalized=False) for n in range(80)])
    assert proof(save(made, tmp_path / "plain"), tmp_path / "x.gguf")[1] == []
    made.add_tokens([AddedToken("<tool>", normalized=False, lstrip=True)])
    checkpoint = save(made, tmp_path / "odd")
    assert "token ids differ" in proof(checkpoint, tmp_path / "x.gguf")[1][0]
    strings = special_strings(checkpoint.tokenizer)
    assert {"x<tool>x", "x<x50>x"} <= set(strings)


def test_a_merge_that_stands_twice_is_refused(tmp_path: Path) -> None:
    checkpoint = save(bytelevel((WHOLE,)), tmp_path / "x")
    model = checkpoint.tokenizer["model"]
    twice = {**model, "merges": [*model["merges"], model["merges"][5]]}
    with pytest.raises(ModelRejected, match=r"has the merge .* twice"):
        read_vocabulary(replace(checkpoint, tokenizer={**checkpoint.tokenizer, "model": twice}))
    content = json.loads(fallback("first").to_str())
    merges = content["model"]["merges"]
    content["model"]["merges"] = [*merges, " ".join(merges[5])]  # the other way to write a merge
    empty = Vocabulary(model="", pre="", tokens=[], types=[], specials={}, add_bos=False, normalizer="")
    with pytest.raises(ModelRejected, match=r"has the merge .* twice"):
        read_fallback(content, empty)


def test_an_end_token_of_llama_cpp_inside_chats_fails(plain: Path, tmp_path: Path) -> None:
    figures, found = faults(plain, tmp_path)
    assert found == []
    ends = figures["tokens"]["ends_here"]
    assert 7 in ends, "llama.cpp takes <|endoftext|> for an end whatever the file says"
    (plain / "chat_template.jinja").write_text(TEMPLATE.replace("<|end|>", "<|endoftext|>"))
    (fault,) = faults(plain, tmp_path)[1]
    assert fault.startswith("tokens [7], which stand inside chats, end an answer in llama.cpp")


def test_an_end_token_may_be_the_last_of_a_chat() -> None:
    wanted: dict[str, Any] = {"plain": [], "special": [], "added": [], "spelled": [], "ends": [7]}
    wanted |= {"bos": 1, "eos": 2, "adds_bos": True, "width": 9, "chats": [{"text": "", "ids": [2, 7, 3, 8]}]}
    seen = {**wanted, "control": [], "kept": [], "ends_here": [2, 7, 8]}
    assert judge_tokens([], wanted, seen)[1] == []
    assert "tokens [3]" in judge_tokens([], wanted, {**seen, "ends_here": [2, 3, 7, 8]})[1][0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"F16": {"kl_mean": None}}, "None is no limit for F16.kl_mean"),
        ({"Q4_K_M": {"kld_mean": None}}, "None is no limit"),
        ({"Q4_K_M": {"kld_mean": float("nan")}}, "nan is no limit"),
        ({"Q4_K_M": {"kld_max": "9"}}, "9 is no limit"),
        ({"Q4_K_M": {"kld_mean": True}}, "True is no limit"),
        ({"F32": {"tokens": 0.98}}, r"F32.tokens cannot be 0.98"),
        ({"F16": {"chats": 0}}, r"F16.chats cannot be 0"),
    ],
)
def test_a_limit_that_asks_nothing_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigWrong, match=said):
        limits_with(changes)


def test_a_changed_limit_is_told() -> None:
    same = limits_with({"Q8_0": {"kld_mean": 0.01, "kld_max": None}, "F16": {"tokens": 1}})
    assert limits_changed(same, same, "llama") == {}
    assert limits_changed(limits_with(None, "gemma3"), ["F32", "F16"], "gemma3") == {}
    bounds = limits_with({"Q8_0": {"kld_mean": 5.0}, "F16": {"tokens": 0.99}})
    assert limits_changed(bounds, ["Q8_0"], "llama") == {"Q8_0": {"kld_mean": {"shipped": 0.01, "used": 5.0}}}
    assert limits_changed(bounds, ["F32", "F16"], "llama") == {
        "F16": {"tokens": {"shipped": 1.0, "used": 0.99}}
    }
    file = {"name": "x", "size": 1, "bits_per_weight": 8.0, "asked": "Q4_0", "type": "Q8_0"}
    loss = {"kld_mean": 0.1, "same_top_clear": 1.0, "perplexity_ratio": 1.0}
    proofs = (
        {"verdict": "PASS", "loss": loss},
        {"verdict": "PASS", "loss": loss, "limits_changed": {"Q8_0": {}}},
    )
    assert [_verdict({**file, "proof": told}) for told in proofs] == [
        "proof PASS, Q8_0, not Q4_0",
        "proof PASS, limits changed, Q8_0, not Q4_0",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"max_position_embeddings": 2**33},
        {"max_position_embeddings": 1},
        {"rope_scaling": {"rope_type": "default", "rope_theta": 1e39}},
        {"rope_scaling": {"rope_type": "linear", "rope_theta": 1e4, "factor": 1e39}},
        {"rms_norm_eps": 1e300},
        {"rms_norm_eps": float("nan")},
    ],
)
def test_a_number_that_no_gguf_holds_is_refused(
    bases: Callable[[str], Path], changes: dict[str, Any]
) -> None:
    checkpoint = open_checkpoint(bases("llama"))
    with pytest.raises(ModelRejected):
        plan(replace(checkpoint, config=checkpoint.config | changes))


def test_gemmas_caps_are_bounded(bases: Callable[[str], Path]) -> None:
    for family, key in (("gemma2", "attn_logit_softcapping"), ("gemma3", "final_logit_softcapping")):
        checkpoint = open_checkpoint(bases(family))
        with pytest.raises(ModelRejected, match=key):
            plan(replace(checkpoint, config=checkpoint.config | {key: 1e39}))


def test_windows_keep_inside_a_short_sliding_window(bases: Callable[[str], Path], tmp_path: Path) -> None:
    base = Path(shutil.copytree(bases("mistral"), tmp_path / "base"))
    edit_json(base / "config.json", sliding_window=24)
    assert faults(base, tmp_path)[1] == []
