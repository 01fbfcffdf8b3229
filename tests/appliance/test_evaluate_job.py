from __future__ import annotations

import dataclasses
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import appliance.models
from appliance.core.db import reading
from appliance.core.errors import ConfigWrong, DataRejected, NotFound, ProofFailed
from appliance.core.events import read_events
from appliance.core.files import sha256_file, sha256_folder
from appliance.core.home import Home, open_home
from appliance.core.job import Job
from appliance.data import store
from appliance.data.records import Record
from appliance.evaluate import rows
from appliance.evaluate.job import run, sample
from appliance.evaluate.page import privacy_statement
from appliance.evaluate.report import check_same_tokens
from appliance.models import registry
from appliance.models.load import load_torch
from appliance.models.registry import Model
from appliance.models.task import PROMPT, Task
from appliance.security import audit
from quantize.convert import convert
from quantize.kernel import quantize_file
from quantize.lora import open_adapter
from quantize.source import open_checkpoint

BASE = Path(appliance.models.__file__).parent / "base"
SAYS = {
    "desk one": ("the bill is wrong", "I paid twice", "send me the invoice"),
    "desk two": ("I need more tablets", "my prescription ran out", "renew the medicine"),
    "desk two stock": ("is the vaccine in stock", "do you have masks in stock", "are gloves in stock"),
    "parking": ("where can I park", "the car park is full", "is parking free"),
}
TASK = Task(kind="label", prompt=PROMPT, labels=tuple(SAYS))
SECRET = "Zbigniew"
PRIVACY = {"unit": "patient", "epsilon": 3.25, "delta": 1e-4, "epsilon_dataset": 4.5}


def records(units: int, seed: int) -> list[Record]:
    random = np.random.default_rng(seed)
    made = []
    for unit in range(units):
        for _ in range(int(random.integers(1, 4))):
            label = str(random.choice(TASK.labels))
            text = f"{SECRET} says {random.choice(SAYS[label])}"
            facts = {"sex": "female" if unit % 2 else "male", "date": f"2025-{1 + unit % 12:02d}-01"}
            made.append(
                Record(id=f"{seed}-{len(made)}", text=text, answer=label, unit=f"p{seed}-{unit}", facts=facts)
            )
    return made


def tune(folder: Path) -> list[dict[str, Any]]:
    """A few steps without privacy, so that there is something to measure."""
    import torch

    from appliance.evaluate.backends import TorchScorer
    from appliance.train.adapt import add_lora
    from appliance.train.settings import Settings

    encoder = TorchScorer(BASE).encoder(TASK)
    says = [
        (f"{name} says {text}", label)
        for label, texts in SAYS.items()
        for text in texts
        for name in ("Ana", "Gregor")
    ]
    encoded = [encoder.encode(text, label) for text, label in says]
    model, _ = load_torch(BASE)
    torch.manual_seed(0)  # where LoRA starts must not hang on the tests that ran before
    model = add_lora(model, Settings(rank=8)).train()
    longest = max(len(one.tokens) for one in encoded)
    ids = torch.tensor([[*one.tokens, *[0] * (longest - len(one.tokens))] for one in encoded])
    paid = torch.tensor(
        [[len(one.prompt) <= at < len(one.tokens) for at in range(1, longest)] for one in encoded]
    )
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    history = []
    for step in range(1, 41):
        logits = model(ids).logits[:, :-1][paid]
        loss = torch.nn.functional.cross_entropy(logits, ids[:, 1:][paid])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append({"step": step, "loss": float(loss.detach()), "epsilon": step / 5})
    model.save_pretrained(folder)
    return history


@dataclass(frozen=True)
class Site:
    home: Home

    def job(self, number: int) -> Job:
        folder = self.home.jobs / f"{number:04d}"
        folder.mkdir(exist_ok=True)
        return Job(id=f"{number:04d}", kind="evaluate", folder=folder, home=self.home, who="mira")

    def run(self, number: int, *models: str, **spec: Any) -> dict[str, Any]:
        asked = {"models": list(models), "against": "base", "dataset": "desk", "version": None, **spec}
        return run({"split": "test", "limit": None, **asked}, self.job(number))

    def add(self, name: str, kind: str, path: Path, parent: str | None, **facts: Any) -> None:
        folder = path.is_dir()
        model = Model(
            name=name,
            kind=kind,
            path=path,
            sha256=sha256_folder(path) if folder else sha256_file(path),
            size=sum(f.stat().st_size for f in path.iterdir()) if folder else path.stat().st_size,
            parent=parent,
            facts=facts,
        )
        registry.add(self.home, model, who="mira")

    def reports(self) -> list[dict[str, Any]]:
        with reading(self.home) as link:
            return [dict(row) for row in link.execute("SELECT * FROM reports ORDER BY job, model")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("appliance.evaluate.backends._RUNS", 1)
        yield _site(tmp_path_factory)


def _site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    made = Site(open_home(folder / "home"))
    home = made.home
    parts = {"train": records(24, 1), "val": records(3, 2), "test": records(60, 3)}
    counts = {name: len(rows) for name, rows in parts.items()}
    store.write_splits(home.datasets / ".draft", parts)
    store.publish(
        home,
        home.datasets / ".draft",
        name="desk",
        task="label",
        labels=TASK.labels,
        unit="patient",
        counts=counts,
        units={name: len({row.unit for row in rows}) for name, rows in parts.items()},
        prompt=PROMPT,
        synthetic=True,
        facts={},
        job="0001",
        who="mira",
    )
    made.add("base", "base", BASE, None)
    history = tune(home.models / "lora")
    tuned = {"task": TASK.as_dict(), "privacy": PRIVACY}
    made.add("lora", "adapter", home.models / "lora", "base", **tuned, training={"history": history})
    checkpoint = open_checkpoint(BASE)
    adapter = open_adapter(home.models / "lora", checkpoint)
    files = {name: home.models / f"{name}.gguf" for name in ("f16", "q8", "bad")}
    convert(checkpoint, files["f16"], "F16", name="lora", adapter=adapter)
    convert(checkpoint, files["bad"], "F16", name="untuned")
    quantize_file(str(files["f16"]), str(files["q8"]), "Q8_0", 1)
    made.add("lora-f16", "gguf", files["f16"], "lora", type="F16", **tuned)
    made.add("lora-q8_0", "gguf", files["q8"], "lora", type="Q8_0", **tuned)
    made.add("lora-bad", "gguf", files["bad"], "lora", type="Q4_0", **tuned)
    return made


@pytest.fixture(scope="module")
def report(site: Site) -> dict[str, Any]:
    return site.run(10, "base", "lora", "lora-q8_0")


def row(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in report["models"] if one["name"] == name)


def test_base_adapter_and_quantised_file_are_measured_and_judged(report: dict[str, Any]) -> None:
    assert [(one["name"], one["role"]) for one in report["models"]] == [
        ("base", "base"),
        ("lora", "model"),
        ("lora-q8_0", "model"),
        ("lora-f16", "reference"),
    ]
    base, tuned, small = (row(report, name) for name in ("base", "lora", "lora-q8_0"))
    assert base["accuracy"] < 0.6 < 0.7 < tuned["accuracy"]
    assert base["gate"] is None and base["change"] is None
    assert abs(small["accuracy"] - tuned["accuracy"]) < 0.05
    assert tuned["free_accuracy"] > 0.5 and tuned["perplexity"] < base["perplexity"]
    assert tuned["size"] > base["size"] > small["size"]
    for one in report["models"]:
        assert one["ci"][0] <= one["accuracy"] <= one["ci"][1]
        assert one["tokens_per_second"] > 0
        assert np.array(one["confusion"]).sum() == report["dataset"]["rows"] == one["rows"]
        assert [group["value"] for group in one["groups"]] == ["female", "male"]
    gates = {gate["model"]: [clause["name"] for clause in gate["clauses"]] for gate in report["gates"]}
    assert gates == {
        "lora": ["accuracy", "chance", "units", "groups"],
        "lora-q8_0": ["accuracy", "chance", "units", "groups", "quantised"],
    }
    assert all(gate["passed"] for gate in report["gates"]) and report["passed"]


def test_what_each_model_answered_is_kept_by_record_without_text(site: Site, report: dict[str, Any]) -> None:
    (found,) = rows.read(site.home, "lora-q8_0")
    assert found.ids == tuple(one.id for one in store.read(store.get(site.home, "desk"), "test"))
    assert found.right.mean() == pytest.approx(row(report, "lora-q8_0")["accuracy"])
    assert found.confidence is not None and 0 < found.confidence.mean() <= 1 and found.seconds > 0
    assert (found.dataset, found.sha256) == ("desk@1", registry.get(site.home, "lora-q8_0").sha256)
    assert SECRET not in (site.home.reports / f"0010{rows.SUFFIX}").read_text()


def test_torch_and_f16_agree(report: dict[str, Any]) -> None:
    tuned, f16 = row(report, "lora"), row(report, "lora-f16")
    assert f16["perplexity"] == pytest.approx(tuned["perplexity"], rel=0.01)
    assert f16["tokens"] == tuned["tokens"]


def test_verdicts_are_entered_with_their_audit_lines_and_a_rerun_replaces_them(
    site: Site, report: dict[str, Any]
) -> None:
    assert json.loads(Path(report["json"]).read_text()) == report
    again = site.run(10, "base", "lora", "lora-q8_0")
    assert again["limits"] == report["limits"]
    assert [(one["name"], one["accuracy"], one["ci"]) for one in again["models"]] == [
        (one["name"], one["accuracy"], one["ci"]) for one in report["models"]
    ]
    mine = [entry for entry in site.reports() if entry["job"] == "0010"]
    assert [(entry["model"], entry["dataset"], entry["passed"]) for entry in mine] == [
        ("lora", "desk@1", 1),
        ("lora-q8_0", "desk@1", 1),
    ]
    assert mine[0]["path"] == report["html"]
    with reading(site.home) as link:
        lines = [line for line in audit.tail(link, 50) if line["what"] == "model.evaluate"]
    assert {"target": "lora", "passed": True, "who": "mira"}.items() <= lines[0].items()


def test_no_text_of_a_record_is_written_anywhere(site: Site, report: dict[str, Any]) -> None:
    events, _ = read_events(site.home.jobs / "0010" / "events.jsonl")
    assert events and events[-1]["done"] == events[-1]["total"]
    assert {"model", "left"} <= events[-1].keys()
    written = [Path(report["json"]).read_text(), Path(report["html"]).read_text(), json.dumps(events)]
    assert not any(SECRET in text or "p3-" in text for text in written)


def test_the_page_needs_nothing_else_and_says_all_in_words(report: dict[str, Any]) -> None:
    page = Path(report["html"]).read_text()
    assert not re.search(r"<script|https?://|\bsrc=|@import|url\(", page)
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) == 6
    for drawing in drawings:
        root = ET.fromstring(drawing)  # noqa: S314
        assert root[0].tag == "title" and root[1].tag == "desc" and root[1].text
        assert root.attrib["aria-labelledby"].split() == [root[0].attrib["id"], root[1].attrib["id"]]
    ids = re.findall(r'\bid="([\w-]+)"', page)
    assert len(ids) == len(set(ids)) == 12
    for words in ("SYNTHETIC", "PASS", "epsilon 3.25", "1.0e-04", "patient", "desk two stock"):
        assert words in page
    assert "single-person mode: no second person approved" in report["people"] and report["people"] in page


def test_a_file_that_lost_what_was_tuned_fails_the_gate(site: Site) -> None:
    found = site.run(11, "lora-bad")
    clauses = {clause["name"]: clause["passed"] for clause in found["gates"][0]["clauses"]}
    assert not clauses["accuracy"] and not clauses["quantised"] and not found["passed"]
    assert [entry["passed"] for entry in site.reports() if entry["job"] == "0011"] == [0]
    assert "FAIL" in Path(found["html"]).read_text()


def test_a_tuned_model_does_not_pass_without_its_base(site: Site) -> None:
    found = site.run(12, "lora", against=None)
    assert found["gates"][0]["passed"] is False and "base" in found["gates"][0]["notes"][0]
    alone = site.run(13, "base", against=None)
    assert alone["gates"] == [] and not alone["passed"]
    assert any("earlier evaluation" in limit for limit in alone["limits"])


def published(site: Site, name: str, task: str, rows: list[Record]) -> None:
    """A dataset without labels, all of whose splits are `rows`."""
    store.write_splits(site.home.datasets / ".draft", {"train": rows, "val": rows, "test": rows})
    store.publish(
        site.home,
        site.home.datasets / ".draft",
        name=name,
        task=task,
        labels=(),
        unit=None,
        counts={},
        units={},
        prompt="{text}",
        synthetic=False,
        facts={},
        job="0002",
        who="mira",
    )


def test_running_text_has_a_perplexity_and_no_share_of_right_answers(site: Site) -> None:
    published(site, "notes", "text", [dataclasses.replace(one, answer="") for one in records(25, 7)])
    found = site.run(19, "base", dataset="notes")
    (told,) = found["models"]
    assert told["perplexity"] > 1 and told["accuracy"] is told["free_accuracy"] is told["free_ci"] is None
    assert "0.0 %" not in Path(found["html"]).read_text()


def test_free_answers_are_measured_by_perplexity_alone(site: Site) -> None:
    rows = [dataclasses.replace(one, answer=f"ask the {one.answer}") for one in records(25, 6)]
    published(site, "talk", "answer", rows)
    site.add("base-q8_0", "gguf", site.home.models / "bad.gguf", "base", type="Q8_0")
    found = site.run(17, "base", "base-q8_0", dataset="talk")
    assert [one["accuracy"] for one in found["models"]] == [None, None]
    assert found["models"][0]["perplexity"] == pytest.approx(found["models"][1]["perplexity"], rel=0.01)
    assert [clause["name"] for clause in found["gates"][0]["clauses"]] == ["quantised"]
    assert found["passed"] and "perplexity" in found["gates"][0]["clauses"][0]["need"]
    page = Path(found["html"]).read_text()
    assert "SYNTHETIC" not in page and "free answers" in page
    with pytest.raises(ConfigWrong):
        site.run(18, "lora", dataset="talk")


def test_only_the_test_split_can_pass_a_model(site: Site) -> None:
    found = site.run(19, "lora-f16", split="train", gate={"units": 2})
    assert found["gates"][0]["clauses"][0]["passed"] and not found["gates"][0]["passed"]
    assert "only the test split" in found["gates"][0]["notes"][0] and found["partial"]
    assert [entry["passed"] for entry in site.reports() if entry["job"] == "0019"] == [0]


def test_a_sample_is_the_same_every_time_and_named(site: Site) -> None:
    found = site.run(14, "lora", limit=30)
    assert found["dataset"]["rows"] == 30 < found["dataset"]["rows_in_split"]
    assert any("sample of 30" in limit for limit in found["limits"])
    assert found["partial"] and not found["passed"]
    assert [gate["partial"] for gate in found["gates"]] == [True]
    assert "Judged on 30 of the" in found["gates"][0]["notes"][-1]
    (entry,) = [entry for entry in site.reports() if entry["job"] == "0014"]
    assert (entry["passed"], entry["partial"]) == (0, 1)
    page = Path(found["html"]).read_text()
    assert ">PARTIAL</span>" in page and ">FAIL</span>\n  lora" not in page
    whole = [entry for entry in site.reports() if entry["job"] == "0010"]
    assert all(entry["partial"] == 0 for entry in whole)
    rows = records(20, 5)
    assert sample(rows, 7) == sample(rows, 7) and len(sample(rows, 7)) == 7
    assert sample(rows, None) == sample(rows, 10**6) == rows
    with pytest.raises(ConfigWrong):
        sample(rows, 0)


def test_refuses_before_anything_is_scored(site: Site) -> None:
    other = Task(kind="label", prompt=PROMPT, labels=("yes", "no"))
    site.add("elsewhere", "adapter", site.home.models / "lora", "base", task=other.as_dict())
    for error, models, spec in (
        (ConfigWrong, ["elsewhere"], {}),
        (ConfigWrong, [], {}),
        (ConfigWrong, ["lora"], {"gate": {"gain": 2}}),
        (ConfigWrong, ["lora"], {"split": "holdout"}),
        (NotFound, ["nobody"], {}),
        (NotFound, ["lora"], {"dataset": "nothing"}),
    ):
        with pytest.raises(error):
            site.run(15, *models, **spec)
    assert not [entry for entry in site.reports() if entry["job"] == "0015"]
    assert not (site.home.reports / "0015.json").exists()


def test_an_engine_that_reads_the_text_otherwise_is_refused(site: Site) -> None:
    from appliance.evaluate.job import _measure

    chain = tuple(registry.lineage(site.home, "lora-q8_0"))
    one = _measure(chain, TASK, records(4, 9), "model", None, lambda done: None)
    check_same_tokens([one, one])
    other = dataclasses.replace(one, scores=dataclasses.replace(one.scores, tokens_sha256="0"))
    with pytest.raises(ProofFailed):
        check_same_tokens([one, other])


def test_an_empty_split_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "read", lambda dataset, split: [])
    with pytest.raises(DataRejected):
        site.run(16, "lora")


def test_privacy_in_words() -> None:
    assert "no record of this site" in privacy_statement({"privacy": None})
    assert "without differential privacy" in privacy_statement({"privacy": {}})
    assert "epsilon 3.25 at delta 1.0e-04 for each patient" in privacy_statement({"privacy": PRIVACY})
