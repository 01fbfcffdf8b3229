"""cloister model: what an import is called, what is said of a bad file, whose privacy a card claims."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.core.home import Home
from appliance.models import registry
from appliance.models.registry import Model
from quantize import worker
from tui.cli.entry import run


def test_a_bad_file_is_named_as_the_person_knows_it(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes of mine.gguf").write_text("text")
    assert run(["model", "import", str(tmp_path / "notes of mine.gguf")]) != 0
    assert "notes of mine.gguf is not a GGUF file." in capsys.readouterr().err
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + bytes(8))
    assert run(["model", "import", str(tmp_path / "cut.gguf")]) != 0
    said = capsys.readouterr().err
    assert "cut.gguf is not a sound GGUF file" in said and ".tmp" not in said
    assert run(["model", "import", str(tmp_path)]) == 2
    assert "Add --name NAME." in capsys.readouterr().err


def test_a_file_is_called_by_its_own_name(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("quantize.foreign.check_gguf", lambda path: {})
    (tmp_path / "My model (2).gguf").write_bytes(b"GGUF")
    assert run(["model", "import", str(tmp_path / "My model (2).gguf"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "My-model-2"


def test_the_dots_of_a_log_are_not_told(tmp_path: Path) -> None:
    (tmp_path / "output.txt").write_text("one\n..........load_all_data: short read\nlast...\n")
    assert worker._last_words(tmp_path / "output.txt") == "one | load_all_data: short read | last..."


def test_the_shipped_base_is_there_already(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "import", "demo"]) == 0
    assert "already" not in capsys.readouterr().out
    assert run(["model", "import", "demo"]) == 0
    assert "demo-base is there already" in capsys.readouterr().out


def test_only_what_was_tuned_here_without_privacy_is_warned_of(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Model(name="base", kind="base", path=tmp_path, sha256="0", size=1)
    file = replace(base, name="base-f16", kind="gguf", parent="base", facts={"privacy": None})
    tuned = replace(base, name="lora", kind="adapter", parent="base", facts={"privacy": None})
    for model in (base, file, tuned, replace(file, name="lora-f16", parent="lora")):
        registry.add(home, model, who="t")
    for name, warned in (("base", False), ("base-f16", False), ("lora", True), ("lora-f16", True)):
        assert run(["model", "card", name]) == 0
        out = capsys.readouterr().out
        assert ("NO PRIVACY" in out, "not tuned here" in out) == (warned, not warned)
