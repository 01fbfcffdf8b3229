"""An adapter's own GGUF file: proven on its base, entered as something that cannot be used alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_quantize_pipeline import home, job_in, logs  # noqa: F401 - `home` is a fixture

from appliance.core.errors import ConfigWrong, NotFound, ProofFailed
from appliance.core.home import Home
from appliance.evaluate.job import open_scorer
from appliance.models import registry
from appliance.serve.chosen import choose
from quantize import adapter_only
from quantize.header import read_gguf
from quantize.job import run
from quantize.worksite import worksite
from tui.cli.quantize import _verdict
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


def test_a_loosened_limit_is_said_and_other_versions_prove_again(
    home: Home,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = made(home, "loose", limits={"F16": {"kl_mean": 0.5}})
    changed = {"F16": {"kl_mean": {"shipped": 1e-4, "used": 0.5}}}
    assert not file["reused"] and file["proof"]["limits_changed"] == changed
    assert json.loads(Path(file["proof"]["path"]).read_text())["proof"]["limits_changed"] == changed
    assert _verdict(file) == "proof PASS, limits changed"
    assert made(home, "loose-again", limits={"F16": {"kl_mean": 0.5}})["reused"]
    monkeypatch.setattr(adapter_only, "same_makers", lambda model: False)
    monkeypatch.setattr(adapter_only, "_made", lambda *given: {"reused": False})
    assert not made(home, "newer", limits={"F16": {"kl_mean": 0.5}})["reused"]


def test_it_is_no_model_by_itself(home: Home) -> None:  # noqa: F811
    made(home, "alone")
    session = Session(home.path, who="mira")
    chain = registry.lineage(home, "lora-1-lora")
    for use in (
        lambda: session.start_privacy_audit({"model": "lora-1-lora"}),
        lambda: session.start_quantising({"model": "lora-1-lora"}),
        lambda: session.evaluation("lora-1-lora", against=None, dataset=None, split="test", limit=None),
        lambda: open_scorer(chain),
    ):
        with pytest.raises(ConfigWrong, match="no use without its base"):
            use()
    with pytest.raises(NotFound, match="its base base has no GGUF file in F16"):
        choose(home, "lora-1-lora", gated=False)
    assert session.jobs() == []


def test_only_adapters_have_one(home: Home) -> None:  # noqa: F811
    with pytest.raises(ConfigWrong, match="is no adapter"):
        made(home, "base", model="base")


def test_a_name_taken_during_the_proof_is_left_alone(
    home: Home,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"somebody else's")
    made(home, "first")
    registry_entry = registry.get(home, "lora-1-lora")
    monkeypatch.setattr(adapter_only, "_whole", lambda model: False)  # so that it is made again
    real = adapter_only.prove

    def slow(*rest: Any, **more: Any) -> Any:
        found = real(*rest, **more)
        monkeypatch.setattr(
            adapter_only.registry, "get", lambda home, name: replace(registry_entry, kind="gguf", path=other)
        )
        return found

    monkeypatch.setattr(adapter_only, "prove", slow)
    before = registry_entry.path.read_bytes()
    with pytest.raises(ConfigWrong, match="already another model"):
        made(home, "second")
    assert registry_entry.path.read_bytes() == before and other.read_bytes() == b"somebody else's"


def test_what_a_killed_job_left_is_cleared_by_the_next(home: Home) -> None:  # noqa: F811
    from appliance.core.db import transaction

    with transaction(home) as link:
        link.execute(
            "INSERT INTO jobs (id, kind, title, who, created, pid, pid_started)"
            " VALUES ('0777', 'quantize', 't', 'w', '2026-01-01', 4194301, 1.0)"
        )
    left = home.jobs / "0777" / "work"
    left.mkdir(parents=True)
    (left / "call.json").write_text("a record")
    job = job_in(home, "next")
    with worksite(job) as work:
        assert not left.exists() and work.is_dir() and list(work.iterdir()) == []
    assert not work.exists()
