"""What may become a base: whole, plain safetensors folders, and nothing that can run code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from appliance.core.errors import ConfigWrong, ModelRejected, NotFound
from appliance.core.home import Home
from appliance.models import registry
from appliance.models.importing import ARCHITECTURES, DEMO_BASE, import_base
from appliance.models.safetensors import read_headers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO_BASE, tmp_path / "base"))


def refused(home: Home, folder: Path, word: str) -> None:
    with pytest.raises(ModelRejected) as problem:
        import_base(home, folder, "clinic", who="m")
    assert word in problem.value.message and problem.value.hint
    assert registry.models(home) == [] and not (home.models / "clinic").exists()


def test_a_whole_folder_is_copied_and_entered_once(home: Home, folder: Path) -> None:
    first = import_base(home, folder, "clinic", who="m")
    assert first == import_base(home, folder, "clinic", who="m")
    assert first.path == home.models / "clinic" and (first.path / "model.safetensors").is_file()
    (folder / "CARD.md").write_text("changed card")
    with pytest.raises(ConfigWrong):
        import_base(home, folder, "clinic", who="m")
    assert "changed card" not in (first.path / "CARD.md").read_text()


def test_pickled_weights_are_refused(home: Home, folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    refused(home, folder, "pickled")


def test_code_of_its_own_is_refused(home: Home, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "m.M"}}))
    refused(home, folder, "code of its own")


@pytest.mark.parametrize("named", [["GPT2LMHeadModel"], "PhiForCausalLM", [], None, [["x"]], {"a": 1}])
def test_an_architecture_that_cannot_be_converted_is_refused(home: Home, folder: Path, named: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": named}))
    refused(home, folder, "architecture")
    with pytest.raises(ModelRejected) as problem:
        import_base(home, folder, "clinic", who="m")
    assert all(name in problem.value.hint for name in ARCHITECTURES)


def test_missing_shards_are_named(home: Home, folder: Path) -> None:
    names = read_headers(folder)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00002.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(home, folder, "model-00001-of-00002.safetensors")


@pytest.mark.parametrize("cut", [4, 100, 5000, 7_000_000])
def test_a_truncated_file_is_refused(home: Home, folder: Path, cut: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:cut])
    refused(home, folder, "model.safetensors")


def test_a_folder_without_a_chat_template_is_refused(home: Home, folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    refused(home, folder, "chat template")


def test_no_such_folder(home: Home, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        import_base(home, tmp_path / "nothing", "clinic", who="m")
