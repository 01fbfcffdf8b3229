"""An adapter's own GGUF file: proven on its base, entered as something that cannot be used alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_quantize_pipeline import home, job_in, logs  # noqa: F401 - `home` is a fixture

from appliance.core.errors import ConfigWrong, ProofFailed
from appliance.core.home import Home
from appliance.evaluate.job import open_scorer
from appliance.models import registry
from appliance.serve.job import choose_model
from quantize import adapter_only
from quantize.header import read_gguf
from quantize.job import run
from tui.session import Session


def made(home: Home, number: str, **spec: Any) -> dict[str, Any]:  # noqa: F811
    (file,) = run({"model": "lora-1", "adapter_only": True, **spec}, job_in(home, number))["files"]
    return file


def test_a_wrong_scale_fails_the_proof_and_leaves_nothing(
    home: Home,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = adapter_only.write_adapter

    def weak(adapter: Any, *rest: Any, **more: Any) -> None:
        from dataclasses import replace

        real(replace(adapter, scale=adapter.scale / 2), *rest, **more)

    monkeypatch.setattr(adapter_only, "write_adapter", weak)
    with pytest.raises(ProofFailed, match="on its base is not lora-1"):
        made(home, "wrong")
    assert "lora-1-lora" not in [model.name for model in registry.models(home)]
    assert not (home.models / "lora-1-lora").exists() and not (home.jobs / "wrong" / "work").exists()


def test_the_file_is_small_proven_and_made_once(home: Home) -> None:  # noqa: F811
    file = made(home, "right")
    assert file["name"] == "lora-1-lora" and not file["reused"] and file["size"] < 1_000_000
    assert file["proof"]["verdict"] == "PASS" and file["proof"]["base"] == "base"
    assert file["proof"]["logits"]["F16"]["kl_mean"] < 1e-4
    proof = json.loads(Path(file["proof"]["path"]).read_text())
    assert proof["sha256"] == file["sha256"] and str(home.path) not in json.dumps(proof)
    header = read_gguf(Path(file["path"]))
    assert header.values["general.type"] == "adapter" and header.values["adapter.type"] == "lora"
    assert [step.name for step in registry.lineage(home, "lora-1-lora")] == ["lora-1-lora", "lora-1", "base"]
    again = made(home, "again")
    assert again["reused"] and again["sha256"] == file["sha256"] and "reused" in logs(job_in(home, "again"))


def test_it_is_no_model_by_itself(home: Home) -> None:  # noqa: F811
    made(home, "alone")
    session = Session(home.path, who="mira")
    chain = registry.lineage(home, "lora-1-lora")
    for use in (
        lambda: session.start_serving({"model": "lora-1-lora"}),
        lambda: session.start_privacy_audit({"model": "lora-1-lora"}),
        lambda: session.start_quantising({"model": "lora-1-lora"}),
        lambda: session.evaluation("lora-1-lora", against=None, dataset=None, split="test", limit=None),
        lambda: open_scorer(chain),
        lambda: choose_model(home, "lora-1-lora", gated=False),
    ):
        with pytest.raises(ConfigWrong, match="no use without its base"):
            use()
    assert session.jobs() == []


def test_only_adapters_have_one(home: Home) -> None:  # noqa: F811
    with pytest.raises(ConfigWrong, match="is no adapter"):
        made(home, "base", model="base")
