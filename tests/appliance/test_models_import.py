"""What may become a base: whole, plain safetensors folders, and nothing that can run code."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from appliance.core.errors import ConfigWrong, ModelRejected, NotFound
from appliance.core.home import Home
from appliance.models import registry
from appliance.models.importing import ARCHITECTURES, DEMO_BASE, import_base
from appliance.models.load import load_torch
from appliance.models.prompt import render
from appliance.models.safetensors import read_headers

DEEP = b'{"a":' * 200_000


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


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_inside_a_base_is_refused(home: Home, folder: Path, name: str) -> None:
    (folder / name).write_text("{}")
    refused(home, folder, name)
    with pytest.raises(ModelRejected, match="adapter"):
        load_torch(folder)


def test_code_named_by_the_tokenizer_is_refused(home: Home, folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"auto_map": {"AutoTokenizer": ["m.T", None]}}))
    refused(home, folder, "code of its own")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "model.safetensors.index.json"])
def test_json_nested_too_deep_is_refused(home: Home, folder: Path, name: str) -> None:
    (folder / name).write_bytes(DEEP)
    refused(home, folder, name)


def test_a_header_nested_too_deep_is_refused(home: Home, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(DEEP)) + DEEP)
    refused(home, folder, "model.safetensors")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "model.safetensors.index.json"])
def test_what_is_no_regular_file_is_not_opened(home: Home, folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    refused(home, folder, "no regular file")


@pytest.mark.parametrize("name", ["NOTICE.md", "config.json"])
def test_links_out_of_the_folder_are_refused(home: Home, folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_bytes((folder / "config.json").read_bytes())
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "outside")
    refused(home, folder, name)


def test_links_of_a_hugging_face_cache_are_followed(home: Home, folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "hub" / "models--site--base"
    snapshot = cache / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(cache / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    (folder / "NOTICE.md").write_text("inside")
    (snapshot / "NOTICE.md").symlink_to(folder / "NOTICE.md")
    refused(home, snapshot, "NOTICE.md")
    (snapshot / "NOTICE.md").unlink()
    entry = import_base(home, snapshot, "clinic", who="m")
    assert not any(file.is_symlink() for file in entry.path.iterdir())


@pytest.mark.parametrize(
    "template",
    [
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ 'x' * 2**62 }}",
        "{{ 'x' * 2**80 }}",
        "{{ 1 / 0 }}",
        "{% if x %}" * 3000 + "{% endif %}" * 3000,
        "{% for a in 'x' %}" * 30 + "{% endfor %}" * 30,
    ],
    ids=["recursion", "memory", "overflow", "zero", "nesting", "blocks"],
)
def test_a_template_that_breaks_the_machine_is_refused(template: str) -> None:
    with pytest.raises(ModelRejected, match=r"cannot be used: .*\w"):
        render(template, [{"role": "user", "content": "x"}], bos_token="", eos_token="")
