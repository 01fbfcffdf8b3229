"""Adapters of every architecture, merged and as a file of their own, are what peft computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from quantize_support import FAMILIES, changed, edit_json, faults, make_adapter

from appliance.core.errors import ModelRejected
from appliance.models.llama import LlamaFile
from quantize import lora
from quantize.arch import plan
from quantize.convert import convert
from quantize.header import read_gguf
from quantize.lora import open_adapter
from quantize.lora_gguf import write_adapter
from quantize.source import open_checkpoint


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rslora", [False, True], ids=["lora", "rslora"])
def test_an_adapter_merged_and_on_top_is_what_peft_computes(
    bases: Callable[[str], Path], tmp_path: Path, family: str, rslora: bool
) -> None:
    base = bases(family)
    adapter = make_adapter(base, tmp_path / "adapter", use_rslora=rslora)
    assert faults(base, tmp_path, adapter=adapter)[1] == []
    whole, extra = tmp_path / "base.gguf", tmp_path / "adapter.gguf"
    checkpoint = open_checkpoint(base)
    convert(checkpoint, whole, "F32", name="t")
    write_adapter(open_adapter(adapter, checkpoint), plan(checkpoint), extra, name="phi3 tuned")
    figures, found = faults(base, tmp_path, adapter=adapter, file=whole, lora=extra)
    assert found == []
    assert figures["logits"]["kl_mean"] <= (1e-6 if family.startswith("gemma") else 1e-8)
    assert any("F32 logits" in fault for fault in faults(base, tmp_path, adapter=adapter, file=whole)[1])


@pytest.mark.parametrize("fault", ["scale", "rows"])
def test_a_fault_in_the_adapter_file_fails_the_proof(
    bases: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    base = bases("llama")
    adapter = make_adapter(base, tmp_path / "adapter", use_rslora=True)
    whole, extra = tmp_path / "base.gguf", tmp_path / "adapter.gguf"
    checkpoint = open_checkpoint(base)
    convert(checkpoint, whole, "F32", name="t")
    made = plan(checkpoint)
    if fault == "rows":
        made = changed(changed(made, "attn_q.weight", heads=0), "attn_k.weight", heads=0)
    else:
        monkeypatch.setattr(lora, "_scale", lambda config: config["lora_alpha"] / config["r"])
    write_adapter(open_adapter(adapter, checkpoint), made, extra, name="t")
    found = faults(base, tmp_path, adapter=adapter, file=whole, lora=extra)[1]
    assert any("F32 logits: kl_mean" in fault for fault in found)


def test_the_adapter_file_says_what_it_is(bases: Callable[[str], Path], tmp_path: Path) -> None:
    base = bases("llama")
    files = []
    for rslora, dtype in ((False, "f32"), (True, "f32"), (True, "again")):
        adapter = make_adapter(base, tmp_path / f"{rslora}-{dtype}", use_rslora=rslora)
        checkpoint = open_checkpoint(base)
        file = tmp_path / f"{rslora}-{dtype}.gguf"
        facts = {"cloister.task": "{}"}
        write_adapter(open_adapter(adapter, checkpoint), plan(checkpoint), file, name="t", facts=facts)
        files.append(file)
    plain, root = (read_gguf(file).values for file in files[:2])
    assert plain["general.type"] == "adapter" and plain["adapter.type"] == "lora"
    assert plain["general.architecture"] == "llama" and plain["cloister.task"] == "{}"
    assert plain["adapter.lora.alpha"] == 8.0
    assert root["adapter.lora.alpha"] == pytest.approx(8 * 4**0.5)  # peft's alpha times sqrt(r)
    assert files[1].read_bytes() == files[2].read_bytes()


def test_adapters_are_changed_while_a_file_is_open(bases: Callable[[str], Path], tmp_path: Path) -> None:
    base = bases("qwen2")
    checkpoint = open_checkpoint(base)
    whole, extra, other = (tmp_path / f"{name}.gguf" for name in ("base", "adapter", "other"))
    convert(checkpoint, whole, "F32", name="t")
    adapter = open_adapter(make_adapter(base, tmp_path / "adapter"), checkpoint)
    write_adapter(adapter, plan(checkpoint), extra, name="t")
    write_adapter(replace(adapter, pairs={}), replace(plan(checkpoint), arch="llama"), other, name="t")
    with LlamaFile(whole, context=32, exact=True) as llama:
        alone = llama.logits([[1, 50, 60]])[0]
        llama.use_adapters({extra: 1.0})
        tuned = llama.logits([[1, 50, 60]])[0]
        llama.use_adapters({extra: 0.5})
        half = llama.logits([[1, 50, 60]])[0]
        llama.use_adapters({})
        assert (llama.logits([[1, 50, 60]])[0] == alone).all()
        assert abs(tuned - alone).max() > abs(half - alone).max() > 0.01
        with pytest.raises(ModelRejected, match="mismatch"):
            llama.use_adapters({other: 1.0})


def test_an_adapter_that_does_nothing_is_refused(bases: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = open_checkpoint(bases("qwen2"))
    adapter = make_adapter(bases("qwen2"), tmp_path / "adapter")
    edit_json(adapter / "adapter_config.json", lora_alpha=0)
    with pytest.raises(ModelRejected, match="does nothing"):
        write_adapter(open_adapter(adapter, checkpoint), plan(checkpoint), tmp_path / "x.gguf", name="t")
    edit_json(adapter / "adapter_config.json", lora_alpha=8, use_dora=True)
    with pytest.raises(ModelRejected, match="use_dora"):
        open_adapter(adapter, checkpoint)
