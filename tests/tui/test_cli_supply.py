from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "appliance"))
import supply_support as s

from appliance.core.home import Home
from appliance.security.supply import baseline, installed
from tui import launch
from tui.cli.entry import run


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("supply")
    return s.make_environment(folder, s.make_wheelhouse(folder / "house"))


@pytest.fixture
def place(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = s.copied(built, tmp_path / "env")
    for module in (baseline, installed):
        monkeypatch.setattr(module, "here", lambda: place)
    return place


@pytest.fixture
def say(home: Home, place: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def said(*words: str, code: int = 0) -> tuple[dict[str, Any], str]:
        assert run(["supply", *words, "--home", str(home.path), "--json"]) == code
        out, err = capsys.readouterr()
        assert max(map(len, err.splitlines()), default=0) <= 80
        return json.loads(out), err

    return said


def test_check_record_and_what_is_found(say: Any, place: Path) -> None:
    told, text = say("check")
    assert told["intact"] and told["recorded"] == "none" and "cloister supply record" in text
    assert "Every file is as its package brought it." in text
    assert say("record")[0]["digest"]
    assert say("check")[0]["recorded"] == "same"
    (place / "zzz.pth").write_text("import os\n")
    s.rewrite(place, "tinylib.py", b"evil\n")
    told, text = say("check", code=12)
    assert "added    zzz.pth" in text and "tiny_lib-1.0+local.1.dist-info/RECORD" in text
    assert "error: 2 installed files are not as installed." in text
    assert [one["path"] for one in told["findings"]] == ["zzz.pth", "tiny_lib-1.0+local.1.dist-info/RECORD"]
    assert say("record", code=12)[0]["error"]["code"] == "installation-altered"


def test_the_sbom_goes_to_a_file_or_the_screen(
    say: Any, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "sbom.json"
    assert say("sbom", "--to", str(to))[0] == {"path": str(to), "components": 1}
    assert run(["supply", "sbom", "--home", str(home.path)]) == 0
    assert capsys.readouterr().out == to.read_text()
    assert run(["supply", "sbom", "--to", str(tmp_path / "none" / "x.json")]) == 2


def test_a_sealed_installation_writes_no_compiled_files(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.prefix = {str(tmp_path)!r}; from tui import launch;"
        "launch.write_no_bytecode_if_sealed(); import os;"
        "print(sys.dont_write_bytecode, os.environ.get('PYTHONDONTWRITEBYTECODE'))"
    )
    root = Path(launch.__file__).resolve().parents[1]

    def ask() -> str:
        argv = [sys.executable, "-c", code]
        return subprocess.run(
            argv, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True
        ).stdout

    assert ask().split() == ["False", "None"]
    (tmp_path / ".sealed").touch()
    assert ask().split() == ["True", "1"]
