"""The door's own decisions: the next step, and what belongs to an evaluation."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import app_site as a
import pytest

from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.home import Home
from appliance.core.processes import began
from appliance.data.store import Dataset
from appliance.models import registry
from appliance.models.registry import Model
from appliance.ops import jobs
from tui.endings import failure
from tui.session import Session
from tui.steps import next_step


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
    units={"train": 100},
    prompt="{text}",
    sha256="0",
    synthetic=False,
)
FEW = dataclasses.replace(DATA, name="few", units={"train": 92})  # would be refused: no step to name
NOBODY = dataclasses.replace(DATA, name="nobody", unit=None)
BASE, LORA, FILE = model("base", "base"), model("lora", "adapter", "base"), model("lora-q8", "gguf", "lora")


@pytest.mark.parametrize(
    ("data", "models", "reports", "words"),
    [
        ([], [], [], "data import"),
        ([DATA], [], [], "model import"),
        ([DATA], [BASE], [], "train inbox"),
        ([FEW], [BASE], [], "data import"),
        ([NOBODY], [BASE], [], "data import"),
        ([DATA, FEW, NOBODY], [BASE], [], "train inbox"),
        ([DATA], [BASE, LORA], [], "evaluate lora"),
        ([DATA], [BASE, LORA], [report("lora", False)], "card lora"),
        ([DATA], [BASE, LORA], [report("lora", True)], "quantize lora"),
        ([DATA], [BASE, LORA, FILE], [report("lora", True)], "evaluate lora"),
        ([DATA], [BASE, LORA, FILE], [report("lora-q8", True)], "serve lora"),
        ([DATA], [BASE, LORA], [report("lora", False) | {"partial": 1}], "evaluate lora"),
        ([DATA], [BASE, LORA, FILE], [report("lora", True), report("lora-q8", False)], "card lora-q8"),
    ],
)
def test_the_next_step_is_the_first_gap(data: Any, models: Any, reports: Any, words: str) -> None:
    assert words in next_step(data, models, [], reports).command


def test_an_edge_imports_and_serves_files() -> None:
    def step(models: list[Model], reports: list[dict[str, Any]]) -> str:
        return next_step([DATA], models, [], reports, edge=True).command

    vectors = dataclasses.replace(FILE, name="vectors", facts={"embeds": True})
    for models in ([], [BASE], [BASE, LORA], [BASE, vectors]):
        assert step(models, []) == "cloister model import FILE.gguf --name NAME"
    for reports in ([], [report("lora-q8", False)], [report("lora-q8", True) | {"partial": 1}]):
        assert step([BASE, LORA, FILE, vectors], reports) == "cloister serve lora-q8 --ungated"
    assert step([FILE], [report("lora-q8", True)]) == "cloister serve lora-q8"


def test_a_step_after_a_model_is_about_that_model(home: Home) -> None:
    session = Session(home.path)
    a.models(home)
    newer = session.model("lora-0002")
    registry.add(home, dataclasses.replace(newer, name="newer", parent="demo-base"), who="mira")
    assert session.step_after("lora-0002-q4_k_m").command == "cloister evaluate lora-0002"
    assert session.step_after("newer").command == "cloister evaluate newer"
    for other in ("demo-base", "gone", None):
        assert session.step_after(other) == session.next_step()
    bare = dataclasses.replace(newer, name="base-f16", kind="gguf", parent="demo-base")
    registry.add(home, bare, who="mira")
    for name in ("demo-base", "base-f16"):
        assert session.step_after(name).command == "cloister serve demo-base --ungated"


def test_a_job_of_this_process_says_what_signal_killed_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    folder = a.job(home, "serve", "serve x", process=(child.pid, began(child.pid)))
    a.tell(folder, "started", kind="serve")
    monkeypatch.setitem(jobs._children, folder, child)
    assert jobs.killed_by(jobs.view(home, "1")) is None
    child.kill()
    child.wait()
    assert failure(jobs.view(home, "1")).message == "Job 0001 was killed (SIGKILL)."


def test_a_job_that_died_says_how_to_go_on_and_its_last_line(home: Home) -> None:
    session = Session(home.path)
    folder = a.job(home, "train", "train inbox")
    (folder / "log.txt").write_text("of the run before\n")
    os.utime(folder / "log.txt", (1, 1))
    a.tell(folder, "started", kind="train")
    told = failure(session.job("0001"))
    assert told.message.endswith("went down).") and "cloister job resume 0001" in told.hint
    a.tell(folder, "log", text="Goes on after step 20.")
    assert failure(session.job("0001")).message == told.message, "that is not why it died"
    (folder / "log.txt").write_text("an error of before\nInvalid HTTP request received.\n")
    assert failure(session.job("0001")).message == told.message
    (folder / "log.txt").write_text("x\nCUDA\x1b[2Jerror" + "!" * 300 + "\n\n")
    message = failure(session.job("0001")).message
    assert "Its last line: CUDA [2Jerror!!" in message and len(message) < 260


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
