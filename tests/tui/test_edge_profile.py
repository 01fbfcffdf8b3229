"""Where only the edge profile is installed: what needs more is refused first, and not suggested."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path
from typing import Any

import app_site as a
import pytest

from appliance.core.errors import ConfigWrong
from appliance.core.home import Home
from appliance.core.profile import check_site, has_site
from quantize import worker
from quantize.proving import start_reference
from tui.cli.entry import run
from tui.session import Session

SITE = ("torch", "transformers", "peft")


class Blocked:
    """Finds nothing of the site profile, as where it is not installed."""

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] in SITE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in SITE]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Blocked(), *sys.meta_path])


def test_the_site_profile_is_seen_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_site()
    check_site()
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigWrong, match="lacks peft"):
        check_site()


@pytest.mark.parametrize(
    "words",
    [
        ["demo"],
        ["train", "nothing"],
        ["search", "nothing"],
        ["evaluate", "nothing"],
        ["quantize", "nothing", "--to", "Q8_0"],
        ["quantize", "nothing", "--adapter-only"],
        ["audit-privacy", "nothing"],
    ],
    ids=" ".join,
)
def test_what_needs_the_site_profile_is_refused_first_thing(
    home: Home, edge: None, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert run(words) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: This installation lacks torch.\ntry: ") and "PROFILE=site" in told.err
    session = Session(home.path)
    assert told.out == "" and session.jobs() == [] and session.models() == [] and session.datasets() == []


def test_a_conversion_is_refused_before_its_child_starts(edge: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "start", lambda *given, **more: pytest.fail("a child was started"))
    origin: Any = None  # nothing of the model is looked at before
    with pytest.raises(ConfigWrong, match="lacks torch"):
        start_reference(origin, [], Path("x"))


def test_what_cannot_run_here_is_not_the_next_step(
    home: Home, edge: None, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(home.path)
    assert run(["model", "import", "demo", "--name", "base"]) == 0
    assert "cloister train" not in capsys.readouterr().out
    folder = a.job(home, "import", "import inbox")
    a.tell(folder, "done", result={"name": "inbox", "version": 1})
    assert run(["job", "tail", "1"]) == 0
    out = capsys.readouterr().out
    assert "Next: cloister model import FILE.gguf" in out and "cloister train" not in out
    a.models(home)
    assert session.step_after("lora-0002").command == "cloister serve lora-0002-q4_k_m --ungated"
    serving = a.job(home, "serve", "serve lora-0002-q4_k_m", process=a.me())
    a.tell(serving, "started", kind="serve")
    assert session.next_step().command == "cloister chat lora-0002-q4_k_m"
