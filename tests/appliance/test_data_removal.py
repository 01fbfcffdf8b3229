"""Records are removed for good: two people agree, a kill in between leaves nothing that is offered again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import evidence_support as facts
import people_support as site
import pytest

from appliance.core import files
from appliance.core.errors import Busy, NeedsApproval, NotAllowed, NotFound
from appliance.core.home import Home
from appliance.data import store
from appliance.ops import data_removal, jobs
from appliance.security.people import approvals, guard


def leftovers(home: Home) -> list[Path]:
    """Files below the home that hold the canary, which every record has."""
    found = []
    for path in home.path.rglob("*"):
        if path.is_file() and facts.CANARY.encode() in path.read_bytes():
            found.append(path)
    return found


def test_the_records_are_gone_and_the_figures_stay(home: Home) -> None:
    made = facts.add_data(home)
    assert leftovers(home)
    told = data_removal.remove(home, "inbox", who="mira")
    assert told.titles == ("inbox@1",) and told.files >= 3
    assert leftovers(home) == [] and store.datasets(home) == []
    with pytest.raises(NotFound, match="removed"):
        store.get(home, "inbox")
    (entry,) = site.column(home, "SELECT entry FROM audit WHERE entry LIKE '%data.delete%'")
    assert json.loads(str(entry))["sha256"] == made.sha256
    again = facts.add_data(home)
    assert again.version == 2  # a number that was used is never another's


def test_two_people_agree_to_just_these_records(home: Home) -> None:
    st_anna = site.settle_in(home)
    facts.add_data(st_anna)
    for who in ("sam", "aude"):
        with pytest.raises(NotAllowed):
            data_removal.remove(st_anna, "inbox", who=who)
    with pytest.raises(NeedsApproval):
        data_removal.remove(st_anna, "inbox", who="ana")
    assert leftovers(st_anna)
    content = data_removal.shown(data_removal.plan(st_anna, "inbox"))
    with pytest.raises(NeedsApproval) as needs:
        guard.require(st_anna, site.actor(st_anna, "ana"), "data.delete", "inbox", content=content)
    approvals.vote(st_anna, needs.value.request, site.signer("olga"), yes=True)
    facts.add_data(st_anna, unit=None, job="0002")  # records that nobody agreed to
    with pytest.raises(NeedsApproval):
        data_removal.remove(st_anna, "inbox", who="ana")
    assert len(store.datasets(st_anna)) == 2


def test_a_kill_between_the_log_and_the_files_is_made_good(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts.add_data(home)
    with monkeypatch.context() as patch:
        patch.setattr(data_removal, "shred", _dies)
        with pytest.raises(KeyboardInterrupt):
            data_removal.remove(home, "inbox", who="mira")
    assert store.datasets(home) == [] and leftovers(home)
    with monkeypatch.context() as patch:  # killed again, in the middle of the folder
        patch.setattr(files.shutil, "rmtree", _dies)
        with pytest.raises(KeyboardInterrupt):
            data_removal.sweep(home)
    assert data_removal.left(home)
    assert data_removal.sweep(home) == 1
    assert leftovers(home) == [] and data_removal.left(home) == []


def test_a_job_that_runs_keeps_its_records(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    facts.add_data(home)

    class Running:
        id, title, kind, state, folder = "0009", "train inbox", "train", "running", home.jobs / "0009"

    Running.folder.mkdir(parents=True)
    (Running.folder / "spec.json").write_text(json.dumps({"spec": {"dataset": "inbox"}}))
    monkeypatch.setattr(jobs, "jobs", lambda *_: [Running])
    with pytest.raises(Busy, match="0009"):
        data_removal.remove(home, "inbox", who="mira")
    assert leftovers(home)


def _dies(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt
