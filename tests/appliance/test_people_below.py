"""Below the door: what does the thing asks again, so that going around the door leads nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import people_support as site
import pytest

from appliance.core.db import reading, transaction
from appliance.core.errors import ApplianceError, NeedsApproval, NotAllowed, PrivacyRefused
from appliance.core.home import Home
from appliance.ops import jobs
from appliance.privacy import ledger, uncharged
from appliance.security import keys
from appliance.security.people import approvals, guard, orders, persons
from appliance.serve import review, route_changes
from appliance.serve.documents import collections

OPEN = {"dataset": "inbox", "base": "b", "settings": {"private": False, "learning_rate": 0.1}}


@pytest.fixture
def st_anna(home: Home) -> Home:
    return site.settle_in(home)


def agree(home: Home, action: str, target: str, content: dict[str, str], *, by: str = "ana") -> None:
    with pytest.raises(NeedsApproval) as needs:
        guard.require(home, site.actor(home, by), action, target, content=content)
    assert approvals.vote(home, needs.value.request, site.signer("olga"), yes=True).state == "approved"


# --- budgets


def limit_of(home: Home) -> float:
    found = ledger.budget(home, "inbox")
    assert found is not None
    return found.epsilon_limit


def test_a_budget_is_lowered_by_the_officer_and_raised_by_two(st_anna: Home) -> None:
    ledger.open_budget(st_anna, "inbox", unit="patient", units=1000, delta=None, who="ana")
    ledger.set_limit(st_anna, "inbox", 4.0, who="olga")
    for who in ("ana", "sam", "aude", "nobody"):
        with pytest.raises(NotAllowed):
            ledger.set_limit(st_anna, "inbox", 3.0, who=who)
    for who in ("ana", "olga"):
        with pytest.raises(NeedsApproval):
            ledger.set_limit(st_anna, "inbox", 5.0, who=who)
    assert limit_of(st_anna) == 4.0
    agree(st_anna, "budget.raise", "inbox", ledger.limit_content(4.0, 5.0))
    with pytest.raises(NeedsApproval):
        ledger.set_limit(st_anna, "inbox", 5.1, who="ana")
    with pytest.raises(PrivacyRefused):
        ledger.set_limit(st_anna, "inbox", float("inf"), who="ana")
    ledger.set_limit(st_anna, "inbox", 5.0, who="ana")
    assert limit_of(st_anna) == 5.0
    ledger.set_limit(st_anna, "inbox", 4.0, who="olga")
    with pytest.raises(NeedsApproval):  # it was used
        ledger.set_limit(st_anna, "inbox", 5.0, who="ana")


# --- keys


def test_keys_are_the_security_admins_but_for_a_terminals_own(st_anna: Home) -> None:
    for who in ("ana", "olga", "aude", "eve"):
        with pytest.raises(NotAllowed):
            keys.new_key(st_anna, "dms", who)
    key_id, _ = keys.new_key(st_anna, "dms", "sam")
    with pytest.raises(NotAllowed):
        keys.revoke(st_anna, key_id, "ana")
    keys.revoke(st_anna, key_id, "sam")
    with pytest.raises(NotAllowed):  # of no end, so not a terminal's own whatever it is called
        keys.new_key(st_anna, keys.OWN_NAME, "ana")
    with pytest.raises(NotAllowed):
        keys.new_key(st_anna, keys.OWN_NAME, "ana", expires=keys.utc_now() + timedelta(days=2))
    own, _ = keys.new_key(st_anna, keys.OWN_NAME, "ana", expires=keys.utc_now() + timedelta(hours=3))
    with pytest.raises(NotAllowed):
        keys.new_key(st_anna, keys.OWN_NAME, "aude", expires=keys.utc_now() + timedelta(hours=3))
    keys.revoke(st_anna, own, "ana")


# --- routes, feedback, documents


def test_routes_feedback_and_documents_ask_too(st_anna: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_changes, "check_new", lambda *args: None)
    (st_anna.documents / "policies").mkdir()
    for who in ("sam", "aude"):
        with pytest.raises(NotAllowed):
            route_changes.make_split(st_anna, "desk", a="a", b="b", share=0.5, difference=0.1, who=who)
        with pytest.raises(NotAllowed):
            review.set_state(st_anna, ["x"], "accepted", who)
        with pytest.raises(NotAllowed):
            collections.remove(st_anna, "policies", who=who)
    (st_anna.documents / "policies" / "index.db").touch()
    route_changes.make_split(st_anna, "desk", a="a", b="b", share=0.5, difference=0.1, who="ana")
    for change in (route_changes.roll_back, route_changes.remove):
        with pytest.raises(NotAllowed):
            change(st_anna, "desk", who="olga")
        change(st_anna, "desk", who="ana")


def test_feedback_is_written_out_by_two_and_as_it_was_shown(
    st_anna: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.jsonl"
    told = review.Exported(path=path, kind="label", columns={}, records=1, left_out={})
    monkeypatch.setattr(review, "_to_export", lambda *args: (b"words\n", told))
    content = review.export_content(st_anna, path, kind=None, model=None, columns=None)
    with pytest.raises(NeedsApproval):
        review.export_records(st_anna, path, "ana")
    agree(st_anna, "feedback.export", path.name, content)
    monkeypatch.setattr(review, "_to_export", lambda *args: (b"other words\n", told))
    with pytest.raises(NeedsApproval):
        review.export_records(st_anna, path, "ana")
    assert not path.exists()
    monkeypatch.setattr(review, "_to_export", lambda *args: (b"words\n", told))
    review.export_records(st_anna, path, "ana")
    assert path.read_bytes() == b"words\n"


# --- jobs


def start(home: Home, who: str, kind: str = "train", spec: dict[str, Any] | None = None, **more: Any) -> str:
    return jobs.start(home, kind, spec or {}, title="t", who=who, **more)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are entered, and no process is started."""
    monkeypatch.setattr(jobs, "_spawn", lambda home, job_id: None)


def test_a_job_needs_the_right_and_the_signature_of_who_starts_it(st_anna: Home, idle: None) -> None:
    with pytest.raises(NotAllowed, match="not signed in"):
        start(st_anna, "ana")
    with pytest.raises(NotAllowed, match="not signed in"):
        start(st_anna, "ana", signer=site.signer("olga"))
    with pytest.raises(NotAllowed, match="is for: operator"):
        start(st_anna, "olga", signer=site.signer("olga"))
    with pytest.raises(NotAllowed):
        start(st_anna, "ana", kind="nonsense", signer=site.signer("ana"))
    assert jobs.jobs(st_anna) == [] and site.lines(st_anna, "job.start") == 0
    assert start(st_anna, "ana", signer=site.signer("ana")) == "0001"
    assert start(st_anna, "olga", kind="audit-privacy", signer=site.signer("olga")) == "0002"


def held(home: Home, job: str = "0001") -> tuple[Path, dict[str, Any]]:
    folder = home.jobs / job
    return folder, json.loads((folder / "spec.json").read_bytes())


def test_the_worker_runs_what_was_signed_and_nothing_else(st_anna: Home, idle: None) -> None:
    start(st_anna, "ana", spec={"dataset": "inbox", "base": "b", "rate": 0.1}, signer=site.signer("ana"))
    folder, order = held(st_anna)
    orders.check(st_anna, folder, order)
    for change in (
        {"spec": {"dataset": "other", "base": "b", "rate": 0.1}},
        {"spec": {"dataset": "inbox", "base": "b", "rate": 0.1000001}},
        {"who": "olga"},
        {"kind": "search"},
    ):
        with pytest.raises(NotAllowed, match="not what was signed"):
            orders.check(st_anna, folder, order | change)
    late = persons.utc_now() + orders.FRESH + timedelta(seconds=1)
    with pytest.raises(NotAllowed, match="too long ago"):
        orders.check(st_anna, folder, order, now=late)
    orders.check(st_anna, folder, order, now=late, fresh=False)
    copy = folder.rename(folder.with_name("0002"))  # the order is of another job
    with pytest.raises(NotAllowed, match="not what was signed"):
        orders.check(st_anna, copy, order)
    copy.rename(folder)
    site.sql(st_anna, "UPDATE jobs SET who = 'olga'")
    with pytest.raises(NotAllowed, match="knows it otherwise"):
        orders.check(st_anna, folder, order)
    site.sql(st_anna, "UPDATE jobs SET who = 'ana'")
    signed = json.loads((folder / "order.json").read_bytes())
    for by, why in (("olga", "nobody of this site signed"), ("eve", "nobody of this site signed")):
        signed["order"]["by"] = by
        (folder / "order.json").write_text(json.dumps(signed))
        with pytest.raises(NotAllowed, match=why):
            orders.check(st_anna, folder, order)
    (folder / "order.json").unlink()
    with pytest.raises(NotAllowed, match="no signed order"):
        orders.check(st_anna, folder, order)


def test_an_order_of_somebody_without_the_right_is_refused_by_the_worker(st_anna: Home, idle: None) -> None:
    """As one who writes the row and the files by hand, and signs with a key that is of this site."""
    start(st_anna, "ana", signer=site.signer("ana"))
    site.sql(st_anna, "UPDATE jobs SET who = 'aude'")
    folder, order = held(st_anna)
    order |= {"who": "aude"}
    said = json.loads((folder / "order.json").read_bytes())["order"] | {"who": "aude", "by": "aude"}
    said["digest"] = orders._hash({name: order[name] for name in ("kind", "spec", "who")})
    signature = orders.signing.sign(site.signer("aude"), "job order", said)
    (folder / "order.json").write_text(json.dumps({"order": said, "signature": signature}))
    with pytest.raises(NotAllowed, match="is for: operator"):
        orders.check(st_anna, folder, order)


def test_a_worker_started_by_hand_does_not_run(st_anna: Home, idle: None) -> None:
    spec = {"path": None, "demo": True, "name": "inbox", "columns": {}, "patients": 30}
    start(st_anna, "ana", kind="import", spec=spec, signer=site.signer("ana"))
    folder, order = held(st_anna)
    (folder / "spec.json").write_text(json.dumps(order | {"spec": spec | {"name": "mine"}}))
    environment = {**os.environ, "CLOISTER_HOME": str(st_anna.path)}
    argv = [sys.executable, "-m", "appliance.ops.worker", str(folder)]
    done = subprocess.run(argv, env=environment, capture_output=True, check=False)
    assert done.returncode == NotAllowed.exit_code
    end = json.loads((folder / "events.jsonl").read_text().splitlines()[-1])
    assert (end["event"], end["code"]) == ("failed", "not-allowed")
    (folder / "spec.json").write_text(json.dumps(order))
    assert subprocess.run(argv, env=environment, capture_output=True, check=False).returncode == 0


def test_training_without_privacy_needs_two_people_at_every_step(st_anna: Home, idle: None) -> None:
    ana = site.signer("ana")
    with pytest.raises(NeedsApproval):
        start(st_anna, "ana", spec=OPEN, signer=ana)
    agree(st_anna, "train.open", "inbox", orders.content_of("train", OPEN))
    other = OPEN | {"settings": {"private": False, "learning_rate": 0.2}}
    with pytest.raises(NeedsApproval):
        start(st_anna, "ana", spec=other, signer=ana)
    job = start(st_anna, "ana", spec=OPEN, signer=ana)
    folder, order = held(st_anna, job)
    orders.check(st_anna, folder, order)
    uncharged.note(st_anna, "inbox", job=job, kind=uncharged.OPEN, who="ana")
    with pytest.raises(NotAllowed):  # agreed to no privacy, not to the records being public
        uncharged.note(st_anna, "inbox", job=job, kind=uncharged.PUBLIC, who="ana")
    with pytest.raises(NeedsApproval):  # used for that job
        start(st_anna, "ana", spec=OPEN, signer=ana)
    private = start(st_anna, "ana", spec={"dataset": "inbox"}, signer=ana)
    with pytest.raises(NotAllowed):
        uncharged.note(st_anna, "inbox", job=private, kind=uncharged.OPEN, who="ana")
    site.sql(st_anna, "DELETE FROM approvals WHERE person = 'olga'")
    with pytest.raises(NotAllowed, match="two people did not agree"):
        orders.check(st_anna, folder, order)
    assert uncharged.jobs_of(st_anna, "inbox", uncharged.OPEN) == [job]


def test_records_are_declared_public_by_two_people(st_anna: Home, idle: None) -> None:
    spec = {"dataset": "inbox", "public": True}
    with pytest.raises(NeedsApproval):
        start(st_anna, "ana", kind="search", spec=spec, signer=site.signer("ana"))
    agree(st_anna, "data.public", "inbox", orders.content_of("search", spec))
    job = start(st_anna, "ana", kind="search", spec=spec, signer=site.signer("ana"))
    uncharged.note(st_anna, "inbox", job=job, kind=uncharged.PUBLIC, who="ana")


def test_a_job_is_resumed_by_who_could_start_it_and_stopped_by_its_owner_or_keepers(
    st_anna: Home, idle: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    agree(st_anna, "train.open", "inbox", orders.content_of("train", OPEN))
    job = start(st_anna, "ana", spec=OPEN, signer=site.signer("ana"))
    for who in ("olga", "aude", "sam"):
        with pytest.raises(NotAllowed):
            jobs.resume(st_anna, job, who=who, signer=site.signer(who))
    with pytest.raises(NotAllowed):
        jobs.resume(st_anna, job, who="ana")
    jobs.resume(st_anna, job, who="ana", signer=site.signer("ana"))
    folder, order = held(st_anna, job)
    orders.check(st_anna, folder, order)
    (folder / "spec.json").write_text(json.dumps(order | {"spec": {}}))
    with pytest.raises(NotAllowed, match="not what was signed"):
        jobs.resume(st_anna, job, who="ana", signer=site.signer("ana"))
    monkeypatch.setattr(jobs, "_process", lambda home, job_id: pytest.fail("reached"))
    with reading(st_anna) as link:
        for who, action, may in (
            ("aude", "job.stop", False),
            ("sam", "job.stop", True),
            ("olga", "job.stop-own", True),
        ):
            if may:
                guard.check(link, st_anna, who, action)
            else:
                with pytest.raises(NotAllowed):
                    guard.check(link, st_anna, who, action)


def test_a_stop_by_somebody_who_may_not_reaches_no_process(st_anna: Home) -> None:
    spec = {"path": None, "demo": True, "name": "inbox", "columns": {}, "patients": 6000}
    job = start(st_anna, "ana", kind="import", spec=spec, signer=site.signer("ana"))
    with pytest.raises(NotAllowed):
        jobs.stop(st_anna, job, who="aude")
    assert jobs.view(st_anna, job).state in ("waiting", "running")
    assert jobs.stop(st_anna, job, who="sam").state in ("stopped", "died")


def test_one_persons_site_orders_nothing(home: Home, idle: None) -> None:
    start(home, "mira", spec=OPEN)
    folder, order = held(home)
    assert not (folder / "order.json").exists()
    orders.check(home, folder, order)
    uncharged.note(home, "inbox", job="0001", kind=uncharged.OPEN, who="mira")
    keys.new_key(home, "dms", "mira")


def test_a_name_that_is_nobodys_gets_nothing_done(st_anna: Home) -> None:
    with transaction(st_anna) as link, pytest.raises(NotAllowed, match="is nobody of this site"):
        guard.spend(link, st_anna, "operator", "route.change", "x")
    with transaction(st_anna) as link, pytest.raises(KeyError):
        guard.spend(link, st_anna, "ana", "no.such-action", "x")
    assert issubclass(NotAllowed, ApplianceError)
