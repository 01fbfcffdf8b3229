"""The serve gate believes the audit log, not the rows of reports, and of a model the newest report alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import bundle_support as b
import people_support as site
import pytest
from test_log_renewal import cut, fill, repair

from appliance.core.db import transaction
from appliance.core.errors import GateFailed
from appliance.core.home import Home
from appliance.models import registry
from appliance.models.registry import Model
from appliance.models.verdicts import verdicts
from appliance.ops import receiving
from appliance.security import audit
from appliance.serve.chosen import choose


def add(home: Home, name: str = "m") -> None:
    registry.add(
        home, Model(name=name, kind="gguf", path=home.models / name, sha256=name * 64, size=1), who="t"
    )


def report(home: Home, job: str, *, passed: bool, partial: bool = False, name: str = "m") -> None:
    with transaction(home) as link:
        link.execute(
            "INSERT INTO reports (model, dataset, created, job, passed, path, partial)"
            " VALUES (?, 'd@1', ?, ?, ?, '', ?)",
            (name, job, job, int(passed), int(partial)),
        )
        audit.record(
            link, who="t", what="model.evaluate", target=name, job=job, passed=passed, partial=partial
        )


def served(home: Home) -> bool:
    try:
        return choose(home, "m", gated=True).name == "m"
    except GateFailed:
        return False


def test_a_newer_failure_ends_an_older_pass(home: Home) -> None:
    add(home)
    report(home, "1", passed=True)
    assert served(home)
    report(home, "2", passed=False, partial=True)
    assert served(home), "a part is no verdict"
    report(home, "3", passed=False)
    assert not served(home)
    report(home, "4", passed=True)
    assert served(home)


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE reports SET passed = 1",
        "UPDATE reports SET created = '0' WHERE passed = 0",
        "DELETE FROM reports WHERE passed = 0",
        "UPDATE reports SET partial = 1 WHERE passed = 0",
        "INSERT INTO reports (model, dataset, created, job, passed, path)"
        " VALUES ('m', 'd@2', '9', '9', 1, '')",
    ],
)
def test_no_row_makes_a_model_pass(home: Home, edit: str) -> None:
    add(home)
    report(home, "1", passed=True)
    report(home, "2", passed=False)
    site.sql(home, edit)
    assert not served(home)
    with pytest.raises(GateFailed) as caught:
        choose(home, "m", gated=True)
    assert "cloister evaluate m" in caught.value.hint or "See the report" in caught.value.hint


def test_a_model_does_not_pass_by_the_name_of_another(home: Home) -> None:
    add(home)
    add(home, "x")
    report(home, "1", passed=True)
    assert served(home)
    site.sql(home, "DELETE FROM models WHERE name = 'm'")
    site.sql(home, "UPDATE models SET name = 'm' WHERE name = 'x'")
    assert not served(home)


def test_a_removed_model_leaves_no_pass_to_the_next_of_its_name(home: Home) -> None:
    add(home)
    report(home, "1", passed=True)
    with transaction(home) as link:
        audit.record(link, who="t", what="model.remove", target="m")
    assert not served(home)


def test_a_log_that_was_set_aside_still_tells_as_far_as_it_was_intact(home: Home) -> None:
    add(home)
    report(home, "1", passed=True)
    fill(home)
    cut(home)
    repair(home)
    assert served(home)
    site.sql(home, "UPDATE reports SET job = '0'")
    assert not served(home)


@pytest.mark.parametrize("old", [False, True])
def test_a_report_that_came_with_a_bundle(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    """`old`: imported by a version that gave it no entry of its own; then the signed manifest is asked."""
    monkeypatch.setattr("time.time", lambda: float(b.NOW))
    monkeypatch.setattr("appliance.security.trust.clock.last_entries", lambda *parts: 0)
    b.pinned(home)
    if old:
        monkeypatch.setattr(receiving, "audit", SimpleNamespace(record=lambda *parts, **more: None))
    for seq, gate in ((1, "PASS"), (2, "FAIL")):
        facts = replace(b.FACTS, evaluation={"gate": gate, "dataset": "d@1"})
        path = b.bundle(
            tmp_path / f"{seq}.clb", b.contents(b"GGUF %d" % seq, b"{}"), seq=seq, facts=facts
        ).path
        receiving.receive(
            home, path, identity=b.EDGE, check_gguf=lambda _: {"type": "F16"}, who="joe", name=f"m{seq}"
        )
    assert verdicts(home) == {"m1": True}
    digest = json.loads(site.column(home, "SELECT facts FROM models WHERE name = 'm2'")[0])["bundle"][
        "digest"
    ]
    site.sql(
        home,
        "INSERT INTO reports (model, dataset, created, job, passed, path) VALUES ('m2', 'd', '9', ?, 1, '')",
        f"bundle-{digest[:12]}",
    )
    assert verdicts(home) == {"m1": True, "m2": False}
    site.sql(home, "UPDATE reports SET model = 'm2' WHERE model = 'm1'")
    assert not any(verdicts(home).values())
