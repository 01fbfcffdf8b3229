"""The whole chain on the shipped base with an adapter, through the job's own door."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from quantize_support import make_adapter

from appliance.core.db import reading
from appliance.core.errors import ConfigWrong, EngineFailed, ProofFailed
from appliance.core.files import sha256_file, sha256_folder
from appliance.core.home import Home, open_home
from appliance.core.job import Job
from appliance.data import store
from appliance.data.records import Record
from appliance.models import registry
from appliance.models.llama import LlamaFile
from appliance.models.registry import Model
from appliance.models.task import Task
from appliance.security import audit
from quantize import convert as convert_module
from quantize import shelf, worker
from quantize.header import read_gguf
from quantize.job import run
from quantize.proving import site_texts
from quantize.verify import lose

BASE = Path(__file__).parents[2] / "appliance" / "models" / "base"
TASK = Task(kind="label", prompt="Message: {text}\nLabel?", labels=("billing", "results", "übrige"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("site")
    adapter = make_adapter(
        BASE, folder / "adapter", std=0.02, target_modules=["v_proj", "o_proj", "down_proj"]
    )
    home = open_home(folder / "home")
    registry.add(
        home, Model(name="base", kind="base", path=BASE, sha256=sha256_folder(BASE), size=1), who="t"
    )
    tuned = Model(
        name="lora-1",
        kind="adapter",
        path=adapter,
        sha256=sha256_folder(adapter),
        size=1,
        parent="base",
        dataset="inbox@1",
        facts={"task": TASK.as_dict(), "privacy": {"epsilon": 8.0}},
    )
    registry.add(home, tuned, who="t")
    return home


def job_in(home: Home, name: str) -> Job:
    folder = home.jobs / name
    folder.mkdir(exist_ok=True)
    return Job(id=name, kind="quantize", folder=folder, home=home)


def ggufs(home: Home) -> list[str]:
    return [model.name for model in registry.models(home) if model.kind == "gguf"]


def logs(job: Job) -> str:
    return (job.folder / "events.jsonl").read_text()


CODE = """
import sys; from pathlib import Path
from appliance.core.home import open_home; from appliance.core.job import Job; from quantize.job import run
from quantize.proving import site_texts
home = open_home(Path(sys.argv[1])); folder = home.jobs / "one"; folder.mkdir(exist_ok=True)
job = Job(id="one", kind="quantize", folder=folder, home=home)
run({"model": "lora-1", "types": ["F16", "Q8_0", "Q4_K_M"]}, job)
"""


def test_killed_in_the_middle_nothing_is_registered(home: Home) -> None:
    environment = {**os.environ, "PYTHONPATH": str(BASE.parents[2])}
    with subprocess.Popen([sys.executable, "-c", CODE, str(home.path)], env=environment) as process:
        draft = home.jobs / "one" / "work" / "F16.gguf"
        for _ in range(1200):
            if draft.exists():
                break
            time.sleep(0.05)
        assert draft.exists()
        process.send_signal(signal.SIGKILL)
    assert ggufs(home) == []
    assert not list(home.models.iterdir())


@pytest.fixture(scope="module")
def made(home: Home) -> list[dict[str, Any]]:
    """The same job, run again after the kill."""
    return run({"model": "lora-1", "types": ["F16", "Q8_0", "Q4_K_M"]}, job_in(home, "one"))["files"]


def test_proven_files_are_registered(home: Home, made: list[dict[str, Any]]) -> None:
    assert [(file["type"], file["name"]) for file in made] == [
        ("F16", "lora-1-f16"),
        ("Q8_0", "lora-1-q8_0"),
        ("Q4_K_M", "lora-1-q4_k_m"),
    ]
    assert ggufs(home) == [file["name"] for file in made]
    assert not (home.jobs / "one" / "work").exists()
    for file in made:
        model = registry.get(home, file["name"])
        assert (model.parent, model.dataset) == ("lora-1", "inbox@1")
        assert model.facts["privacy"] == {"epsilon": 8.0}
        assert sha256_file(model.path) == model.sha256 == file["sha256"]
        said = read_gguf(model.path).values
        assert json.loads(said["cloister.task"]) == TASK.as_dict()
        assert said["general.file_type"] == {"F16": 1, "Q8_0": 7, "Q4_K_M": 15}[file["type"]]


def test_the_proofs_hold_figures_within_the_limits(made: list[dict[str, Any]]) -> None:
    f16, int8, int4 = (file["proof"] for file in made)
    assert f16["tokens"]["equal"] == f16["tokens"]["strings"] > 140
    assert f16["template"]["equal"] == f16["template"]["chats"] == 6
    assert f16["logits"]["F32"]["kl_mean"] < 1e-8
    assert f16["logits"]["F16"]["kl_mean"] < 1e-4
    assert int8["loss"]["kld_mean"] < 0.01 < int4["loss"]["kld_mean"] < 0.06
    assert int4["stepped_up"] == {}
    sizes = [file["size"] for file in made]
    assert sizes == sorted(sizes, reverse=True)
    assert made[2]["bits_per_weight"] < 5.3


def test_the_served_file_computes(made: list[dict[str, Any]]) -> None:
    with LlamaFile(made[2]["path"], context=64) as llama:
        assert llama.logits([[1, 4, 30]])[0].shape == (1, 4096)


def test_a_second_run_reuses_what_is_proven(home: Home, made: list[dict[str, Any]]) -> None:
    job = job_in(home, "two")
    began = time.monotonic()
    again = run({"model": "lora-1", "types": ["Q8_0", "Q4_K_M"]}, job)["files"]
    assert time.monotonic() - began < 3
    assert [file["reused"] for file in again] == [True, True, True]
    assert [file["sha256"] for file in again] == [file["sha256"] for file in made]
    assert "reused" in logs(job)


def test_a_lost_file_is_made_again_and_a_far_type_steps_up(home: Home, made: list[dict[str, Any]]) -> None:
    Path(made[1]["path"]).write_bytes(b"")
    job = job_in(home, "three")
    limits = {"Q4_0": {"kld_mean": 1e-9}, "Q4_K_M": {"kld_mean": 1e-9}}
    files = run({"model": "lora-1", "types": ["Q8_0", "Q4_0"], "limits": limits}, job)["files"]
    assert files[0]["reused"]
    assert sha256_file(Path(made[1]["path"])) == made[1]["sha256"] == files[1]["sha256"]
    assert (files[2]["asked"], files[2]["type"], files[2]["name"]) == ("Q4_0", "Q5_K_M", "lora-1-q5_k_m")
    assert list(files[2]["proof"]["stepped_up"]) == ["Q4_0", "Q4_K_M", "Q4_K_M + imatrix"]
    first = files[2]["proof"]["stepped_up"]["Q4_0"]
    assert first["missed"][0].startswith("kld_mean") and first["limits"]["kld_mean"] == 1e-9
    assert "lora-1-q4_0" not in ggufs(home)
    assert "Q4_0 is too far from F16 (kld_mean" in logs(job)
    again = run({"model": "lora-1", "types": ["Q4_0"], "limits": limits}, job_in(home, "four"))["files"]
    assert [file["reused"] for file in again] == [True, True]
    eased = {"Q4_0": {"kld_mean": 1.0, "same_top_clear": 0.5}}  # other limits: the answer may be another
    (_, plain) = run({"model": "lora-1", "types": ["Q4_0"], "limits": eased}, job_in(home, "five"))["files"]
    assert (plain["type"], plain["reused"], plain["proof"]["stepped_up"]) == ("Q4_0", False, {})


def test_the_proof_travels_beside_the_file(home: Home, made: list[dict[str, Any]]) -> None:
    for file in made:
        told = json.loads(Path(file["proof"]["path"]).read_text())
        assert Path(file["proof"]["path"]).parent == Path(file["path"]).parent
        assert (told["format"], told["sha256"], told["type"]) == (1, file["sha256"], file["type"])
        assert told["proof"] == {key: part for key, part in file["proof"].items() if key != "path"}
        assert str(home.path) not in json.dumps(told)
        memory = told["serving"]["memory"]
        assert memory["total"] == file["size"] + memory["kv"] + memory["compute"]
        assert (memory["context"], memory["slots"], memory["kv"]) == (512, 4, 4 * 512 * 2 * 3 * 256 * 2)
        assert told["serving"]["tokens_per_second"]["answer"] > 0
    assert made[2]["proof"]["f16"]["sha256"] == made[0]["sha256"]
    assert made[2]["proof"]["f16"]["tokens"] == made[0]["proof"]["tokens"]


def test_other_versions_prove_again_and_leave_valid_json(
    home: Home, made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = worker.run

    def without_number(function: Any, /, **more: Any) -> Any:
        found = real(function, **more)
        return {**found, "kld_99": float("nan")} if function is lose else found

    def no_json(word: str) -> None:
        raise AssertionError(word)

    monkeypatch.setattr(worker, "run", without_number)
    monkeypatch.setattr(shelf, "makers", lambda: {**made_by, "llama-cpp-python": "9.9"})
    made_by = registry.get(home, made[0]["name"]).facts["versions"]
    assert set(made_by) == {"cloister", "gguf", "llama-cpp-python", "converter"}
    files = run({"model": "lora-1", "types": ["Q8_0"]}, job_in(home, "newer"))["files"]
    assert [file["reused"] for file in files] == [False, False]
    assert [file["sha256"] for file in files] == [file["sha256"] for file in made[:2]]
    for file in files:
        told = json.loads(Path(file["proof"]["path"]).read_text(), parse_constant=no_json)
        assert told["versions"]["llama-cpp-python"] == "9.9"
        assert registry.get(home, file["name"]).facts["proof"] == told["proof"]
    assert told["proof"]["loss"]["kld_99"] is None
    again = run({"model": "lora-1", "types": ["Q8_0"]}, job_in(home, "newest"))["files"]
    assert [file["reused"] for file in again] == [True, True]
    with reading(home) as link:
        assert [line["target"] for line in audit.tail(link, 9) if line["what"] == "model.prove"][-2:] == [
            file["name"] for file in files
        ]
    other = replace(registry.get(home, files[0]["name"]), facts={"versions": made_by})
    with pytest.raises(ConfigWrong, match="was made by other versions"):
        shelf.check_same(other, "0" * 64)


def test_a_file_that_is_not_the_model_is_not_registered(
    home: Home, made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert_module, "pair_halves", lambda values, heads: values)
    before = ggufs(home)
    with pytest.raises(ProofFailed, match=r"not base: .*F32 logits: kl_mean"):
        run({"model": "base", "types": ["F16"]}, job_in(home, "five"))
    assert ggufs(home) == before
    assert not (home.jobs / "five" / "work").exists()


def test_a_crash_of_a_child_is_a_typed_error(
    home: Home, made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = worker.start
    monkeypatch.setattr("quantize.worker.start", lambda function, doing, **_: begin(os.abort, doing=doing))
    with pytest.raises(EngineFailed, match=r"with transformers crashed \(SIGABRT\)"):
        run({"model": "base", "types": ["F16"]}, job_in(home, "six"))
    assert "base-f16" not in ggufs(home)
    assert not (home.jobs / "six" / "work").exists()


def test_wrong_asks_are_refused_before_work(home: Home, made: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigWrong, match="Q9_9"):
        run({"model": "lora-1", "types": ["Q9_9"]}, job_in(home, "seven"))
    with pytest.raises(ConfigWrong, match="GGUF file already"):
        run({"model": "lora-1-f16", "types": ["F16"]}, job_in(home, "seven"))
    taken = Model(name="base-q8_0", kind="gguf", path=BASE, sha256="0", size=1)
    registry.add(home, taken, who="t")
    with pytest.raises(ConfigWrong, match="another model named base-q8_0"):
        run({"model": "base", "types": ["Q8_0"]}, job_in(home, "seven"))


def test_the_proof_reads_the_sites_own_text_and_leaves_none_of_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        Record(id=str(n), text=f"Überweisung {n} für Frau Kowalčík", answer="billing", unit=str(n))
        for n in range(3)
    ]
    draft = home.datasets / ".draft"
    store.write_splits(draft, {"train": rows, "val": rows, "test": rows})
    counts = {"train": 3, "val": 3, "test": 3}
    store.publish(
        home,
        draft,
        name="inbox",
        task="label",
        labels=TASK.labels,
        unit="patient",
        counts=counts,
        units=counts,
        prompt=TASK.prompt,
        synthetic=True,
        facts={},
        job="0001",
        who="t",
    )
    assert site_texts(home, "inbox@1") == [rows[0].text, "billing", rows[1].text, rows[2].text]
    assert site_texts(home, "gone@1") == site_texts(home, None) == []
    places: list[Path] = []
    real = worker.Child

    def watched(call: Any, doing: str, timeout: float, place: Path | None) -> Any:
        child = real(call, doing, timeout, place)
        if rows[0].text in json.dumps(call, ensure_ascii=False):
            places.append(Path(child._folder.name))
        return child

    monkeypatch.setattr(worker, "Child", watched)
    job = job_in(home, "own")
    before = registry.get(home, "lora-1-f16") if "lora-1-f16" in ggufs(home) else None
    files = run({"model": "lora-1", "types": ["F16"], "texts": ["again"]}, job)["files"]
    assert before is None or before.sha256 == files[0]["sha256"], "the same file, proven once more"
    assert places and all(place.is_relative_to(home.path) for place in places), (
        "record text stays in the site"
    )
    left = [file for file in home.path.rglob("*") if file.is_file() and "datasets" not in file.parts]
    assert not any(b"Kowal" in file.read_bytes() for file in left)
    assert files[0]["proof"]["tokens"]["strings"] > 100
