"""The door's own decisions: the next step, and what belongs to an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.home import Home
from appliance.data.store import Dataset
from appliance.models.registry import Model
from tui.session import Session, next_step


def model(name: str, kind: str, parent: str | None = None) -> Model:
    return Model(name=name, kind=kind, path=Path(name), sha256="0", size=1, parent=parent)


def report(name: str, passed: bool) -> dict[str, Any]:
    return {"model": name, "passed": passed}


DATA = Dataset(
    name="inbox",
    version=1,
    folder=Path("x"),
    task="label",
    labels=("a", "b"),
    unit="patient",
    counts={},
    units={},
    prompt="{text}",
    sha256="0",
    synthetic=False,
)
BASE, LORA, FILE = model("base", "base"), model("lora", "adapter", "base"), model("lora-q8", "gguf", "lora")


@pytest.mark.parametrize(
    ("data", "models", "reports", "words"),
    [
        ([], [], [], "data import"),
        ([DATA], [], [], "model import"),
        ([DATA], [BASE], [], "train inbox"),
        ([DATA], [BASE, LORA], [], "evaluate lora"),
        ([DATA], [BASE, LORA], [report("lora", False)], "card lora"),
        ([DATA], [BASE, LORA], [report("lora", True)], "quantize lora"),
        ([DATA], [BASE, LORA, FILE], [report("lora", True)], "evaluate lora"),
        ([DATA], [BASE, LORA, FILE], [report("lora-q8", True)], "serve lora"),
    ],
)
def test_the_next_step_is_the_first_gap(data: Any, models: Any, reports: Any, words: str) -> None:
    assert words in next_step(data, models, [], reports).command


def test_the_base_may_be_left_out_only_when_there_is_one(home: Home) -> None:
    session = Session(home.path)
    with pytest.raises(NotFound):
        session.base(None)
    session.demo_base()
    assert session.base(None).name == "demo-base"
    from appliance.models.importing import DEMO_BASE

    session.import_model(DEMO_BASE, "second")
    with pytest.raises(ConfigWrong):
        session.base(None)
