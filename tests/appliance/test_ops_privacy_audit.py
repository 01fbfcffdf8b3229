"""The audit as a job: an overfit twin without privacy fails, a private run does not, nothing is charged."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from appliance.core.db import reading
from appliance.core.errors import ConfigWrong
from appliance.core.events import read_events
from appliance.core.files import sha256_file
from appliance.core.home import Home, open_home
from appliance.core.job import Job
from appliance.data import inbox, store
from appliance.data.records import Record
from appliance.models import registry
from appliance.models.importing import DEMO_BASE, import_base
from appliance.models.registry import Model
from appliance.models.task import PROMPT
from appliance.ops.privacy_audit import audits, run
from appliance.ops.privacy_audit_mechanism import claim_of, record_findings
from appliance.ops.privacy_audit_sides import near_others, sides
from appliance.privacy import ledger, noise
from appliance.security import audit
from appliance.train import job as train_job
from appliance.train import loop
from quantize.convert import convert
from quantize.kernel import quantize_file
from quantize.lora import open_adapter
from quantize.source import open_checkpoint
from tui.cli.audit_privacy import say_audit
from tui.cli.face import Face
from tui.cli.privacy_lines import told_once

LABELS = ("billing", "refill", "parking", "forms")
TRAINED, HELD_OUT = 100, 120


def records() -> Iterator[Record]:
    """Messages whose labels are drawn by chance: whoever gets them right has learnt them by heart."""
    random = np.random.default_rng(5)
    seen = set()
    for message in inbox.generate(9, patients=2000):
        if message.unit not in seen:
            seen.add(message.unit)
            yield Record(
                id=message.id, text=message.text, answer=str(random.choice(LABELS)), unit=message.unit
            )


@dataclass(frozen=True)
class Site:
    home: Home

    def job(self, number: int, kind: str) -> Job:
        folder = self.home.jobs / f"{number:04d}"
        folder.mkdir(exist_ok=True)
        return Job(id=f"{number:04d}", kind=kind, folder=folder, home=self.home, who="mira")

    def audit(self, number: int, model: str, **spec: Any) -> dict[str, Any]:
        return run({"model": model, "canaries": 1000, **spec}, self.job(number, "audit-privacy"))

    def train(self, number: int, name: str, **settings: Any) -> None:
        spec = {"dataset": "desk", "base": "base", "name": name, "settings": settings}
        train_job.run(spec, self.job(number, "train"))

    def shrink(self, name: str) -> None:
        checkpoint = open_checkpoint(DEMO_BASE)
        adapter = open_adapter(self.home.models / name, checkpoint)
        full, small = (self.home.models / f"{name}-{kind}.gguf" for kind in ("f16", "q8_0"))
        convert(checkpoint, full, "F16", name=name, adapter=adapter)
        quantize_file(str(full), str(small), "Q8_0", 1)
        model = Model(
            name=small.stem,
            kind="gguf",
            path=small,
            sha256=sha256_file(small),
            size=small.stat().st_size,
            parent=name,
            facts={"type": "Q8_0"},
        )
        registry.add(self.home, model, who="mira")


class Repeated:
    """In place of `os`: random bytes that are the same in every run of these tests."""

    def __init__(self) -> None:
        self.urandom = np.random.default_rng(17).bytes


@pytest.fixture(scope="module", autouse=True)
def _repeatable() -> Iterator[None]:
    """An audit calls an honest run wrong now and then; these tests are to say the same every time."""
    same = Repeated()
    with pytest.MonkeyPatch.context() as patch:
        for module in (noise, loop):
            patch.setattr(module, "os", same)
        yield


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, _repeatable: None) -> Site:
    torch.manual_seed(3)
    made = Site(open_home(tmp_path_factory.mktemp("site") / "home"))
    some = list(islice(records(), TRAINED + HELD_OUT + 10))
    parts = {
        "train": some[:TRAINED],
        "test": some[TRAINED : TRAINED + HELD_OUT],
        "val": some[TRAINED + HELD_OUT :],
    }
    counts = {name: len(part) for name, part in parts.items()}
    draft = made.home.datasets / ".draft"
    store.write_splits(draft, parts)
    store.publish(
        made.home,
        draft,
        name="desk",
        task="label",
        labels=LABELS,
        unit="patient",
        counts=counts,
        units=counts,
        prompt=PROMPT,
        synthetic=True,
        facts={"labels_declared": True},
        job="0001",
        who="mira",
    )
    import_base(made.home, DEMO_BASE, "base", who="mira")
    hungry = {"private": False, "steps": 50, "batch": 40, "rank": 16, "alpha": 32, "learning_rate": 1e-2}
    made.train(2, "twin", **hungry, plant_secrets=16)
    made.train(3, "careful", epsilon=3.0, steps=8, sample_rate=0.35, plant_secrets=16)
    for name in ("twin", "careful"):
        made.shrink(name)
    return made


@pytest.fixture(scope="module")
def bad(site: Site) -> dict[str, Any]:
    return site.audit(10, "twin")


@pytest.fixture(scope="module")
def good(site: Site) -> dict[str, Any]:
    return site.audit(11, "careful")


def finding(report: dict[str, Any], name: str, on: str) -> dict[str, Any]:
    return next(one for one in report["findings"] if (one["name"], one["on"]) == (name, on))


def test_an_overfit_twin_without_privacy_fails_as_adapter_and_as_file(bad: dict[str, Any]) -> None:
    assert bad["verdict"] == "FAIL" and not bad["private"]
    assert bad["verdicts"] == {"twin": "FAIL", "twin-q8_0": "FAIL"}
    for name in bad["verdicts"]:
        assert finding(bad, "membership by loss", name)["figures"]["auc"] > 0.7
    assert finding(bad, "blind baseline", "desk@1")["verdict"] == "PASS"
    assert bad["tests"] == {"A": "INCONCLUSIVE", "B": "INCONCLUSIVE", "C": "INCONCLUSIVE", "D": "FAIL"}


def test_a_private_run_does_not_fail(good: dict[str, Any]) -> None:
    assert good["private"] and "FAIL" not in {one["verdict"] for one in good["findings"]}
    assert set(good["verdicts"]) == {"careful", "careful-q8_0"}
    assert good["tests"]["A"] == "PASS"
    assert finding(good, "membership by loss", "careful-q8_0")["figures"]["auc"] < 0.65
    assert finding(good, "membership at 1 %", "careful")["verdict"] == "INCONCLUSIVE"


def test_planted_secrets_are_looked_for_in_every_form(
    site: Site, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    for report, name in ((good, "careful"), (good, "careful-q8_0"), (bad, "twin"), (bad, "twin-q8_0")):
        bits = finding(report, "exposure of planted secrets", name)["figures"]["bits"]
        assert {times: len(found) for times, found in bits.items()} == {"1": 16, "4": 4, "16": 1}
        often = np.mean([*bits["4"], *bits["16"]])
        assert (often > 4) == (report is bad), "the attack finds what was said again and again"
    for name in good["verdicts"]:
        assert finding(good, "exposure of planted secrets", name)["verdict"] == "PASS"
    privacy = registry.get(site.home, "careful").facts["privacy"]
    assert privacy["declared_units"] == TRAINED + 48 and privacy["made_up_units"] == 48


def test_every_finding_says_what_it_could_have_shown(good: dict[str, Any], bad: dict[str, Any]) -> None:
    for one in [*good["findings"], *bad["findings"]]:
        assert one["found"] and one["ceiling"]
    assert any("Not detected is not private" in text for text in good["limits"])
    assert any("cannot pass" in text for text in bad["limits"])


def test_verdicts_are_kept_with_their_audit_line_and_hold_no_text(
    site: Site, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    path = Path(good["json"])
    assert json.loads(path.read_text()) == json.loads(json.dumps(good))
    newest = audits(site.home, "careful-q8_0")
    assert [(one["job"], one["verdict"]) for one in newest] == [("0011", good["verdicts"]["careful-q8_0"])]
    assert {one["model"] for one in audits(site.home)} == {"careful", "twin"}
    with reading(site.home) as link:
        lines = [line for line in audit.tail(link, 50) if line["what"] == "model.audit-privacy"]
    assert {line["target"]: line["verdict"] for line in lines}["twin"] == "FAIL"
    assert lines[-1]["sha256"] == sha256_file(path)
    events, _ = read_events(site.home.jobs / "0011" / "events.jsonl")
    assert events[-1]["done"] == pytest.approx(1.0)
    written = path.read_text() + json.dumps(events)
    for split in ("train", "test"):
        for record in store.read(store.get(site.home, "desk"), split):
            assert record.text not in written and str(record.unit) not in written


def test_the_audit_charges_nothing(site: Site, good: dict[str, Any]) -> None:
    assert {event["job"] for event in ledger.events(site.home, "desk")} == {"0003"}


def test_a_file_alone_is_audited_with_the_mechanism_of_its_run(site: Site) -> None:
    report = site.audit(12, "careful-q8_0", limit=40)
    assert list(report["verdicts"]) == ["careful-q8_0"] and report["trained"] == "careful"
    assert report["sizes"]["members"] <= 40 and report["tests"]["A"] == "PASS"


def test_what_was_not_trained_here_is_refused(site: Site) -> None:
    with pytest.raises(ConfigWrong, match="not trained here"):
        site.audit(13, "base")


def test_a_record_that_is_wrong_about_itself_fails(site: Site) -> None:
    model = registry.get(site.home, "careful")
    claim = claim_of(model)
    assert claim is not None
    assert {one.verdict for one in record_findings(claim)} == {"PASS"}

    def verdicts(**change: Any) -> list[str]:
        return [one.verdict for one in record_findings(replace(claim, **change))]

    weak = [{**step, "noise_ratio": 0.9} for step in claim.history]
    old = [{key: step[key] for key in step if key != "noise_ratio"} for step in claim.history]
    full = [{**step, "units": TRAINED} for step in claim.history]
    assert verdicts(history=weak) == ["FAIL", "PASS", "PASS"]
    assert verdicts(history=old) == ["INCONCLUSIVE", "PASS", "PASS"]
    assert verdicts(history=full) == ["PASS", "FAIL", "PASS"]
    assert verdicts(stated=claim.stated / 2) == ["PASS", "PASS", "FAIL"]
    assert verdicts(charged=claim.charged - 1) == ["PASS", "PASS", "FAIL"]


def test_near_copies_of_other_units_are_left_out_on_both_sides(site: Site) -> None:
    def record(number: int, text: str, unit: str) -> Record:
        return Record(id=str(number), text=text, answer="billing", unit=unit)

    long = "please send the papers for the insurance to my new address before friday"
    training = [record(1, long, "a"), record(2, f"{long} thanks", "b"), record(3, "is parking free", "c")]
    asked = [*training, record(4, long.upper(), "d"), record(5, "my tablets ran out", "e")]
    assert near_others(asked, training).tolist() == [True, True, False, True, False]
    chosen = sides(store.get(site.home, "desk"), 25)
    assert len(chosen.members) <= 25 and len({one.unit for one in chosen.members}) == len(chosen.members)


def test_what_is_the_same_for_every_file_is_told_once(good: dict[str, Any]) -> None:
    same = {"test": "D", "name": "n", "verdict": "NOT RUN", "found": "No secrets.", "ceiling": "nothing"}
    told = told_once([same | {"on": "lora"}, same | {"on": "lora-q8"}, same | {"on": "x", "found": "One."}])
    assert [(one["on"], one["found"]) for one in told] == [("all 2: lora ...", "No secrets."), ("x", "One.")]
    out = io.StringIO()
    with redirect_stdout(out):
        say_audit(Face(None, False), good)
    assert sum("No secrets were planted" in line for line in out.getvalue().splitlines()) <= 1


def test_the_terminal_shows_every_line_within_its_width(good: dict[str, Any]) -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        say_audit(Face(None, False), good)
    said = out.getvalue()
    assert all(one["name"] in said for one in good["findings"])
    assert "privacy audit" in said and "Not detected is not private" in said
    assert max(len(line) for line in said.splitlines() if "report:" not in line) <= 80
