"""No way through the door without its lock: every public function of tui.session* is listed and asks."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "appliance"))
import people_support as site

from appliance.core.errors import NeedsApproval, NotAllowed
from appliance.core.home import Home
from appliance.ops import jobs
from appliance.security.people import approvals
from appliance.security.people.roles import TABLE
from tui.session import Session

ROOT = Path(__file__).resolve().parents[2]
READS = """datasets dataset base models model lineage people jobs older_jobs job budget_names budgets
next_step step_after plan_training plan_search evaluation plan_quantising endpoints api_keys key_usage"""
TWO = tuple(action for action, right in TABLE.items() if right.two)

# Module and name, and what it is called in the table of rights; () is open to anybody.
WAYS: dict[str, tuple[str, ...]] = {
    **{f"session.{name}": ("site.read",) for name in READS.split()},
    "session.why_not": (),
    "session.audit_tail": ("audit.read",),
    "session.reports": ("report.read",),
    "session.privacy_audits": ("report.read",),
    "session.set_budget": ("budget.raise", "budget.lower"),
    "session.start_import": ("data.import",),
    "session.start_training": ("train.start",),
    "session.start_search": ("train.start",),
    "session.start_evaluation": ("evaluate.start",),
    "session.start_quantising": ("quantize.start",),
    "session.start_serving": ("serve.start",),
    "session.start_privacy_audit": ("privacy.audit",),
    "session.stop_job": ("job.stop",),
    "session.resume_job": ("job.resume",),
    "session.import_model": ("model.import",),
    "session.demo_base": ("model.import",),
    "session.new_key": ("key.new", "key.own"),
    "session.revoke_key": ("key.revoke", "key.own"),
    "session_data.look_at": ("data.import",),
    "session_data.check_import": ("data.import",),
    "session_data.plan_removal": ("site.read",),
    "session_data.remove": ("data.delete",),
    "session_bundle.bare_home": (),
    "session_bundle.identity": (),
    "session_bundle.make_identity": ("trust.add",),
    "session_bundle.card": ("site.read",),
    "session_bundle.card_facts": (),
    "session_bundle.read_card_file": (),
    "session_bundle.trusted": ("site.read",),
    "session_bundle.trust_add": ("trust.add",),
    "session_bundle.trust_revoke": ("trust.revoke",),
    "session_bundle.root_accept": ("trust.add",),
    "session_bundle.root_facts": (),
    "session_bundle.request": ("bundle.export",),
    "session_bundle.export": ("bundle.export",),
    "session_bundle.verify": (),
    "session_bundle.look": (),
    "session_bundle.receive": ("bundle.import",),
    "session_root.root_key": (),
    "session_root.root_draft": (),
    "session_root.root_sign": (),
    "session_root.check_free": (),
    "session_root.root_seal": (),
    "session_bundle.rotate": ("trust.rotate",),
    "session_carry.export_round": ("federate.carry",),
    "session_carry.import_round": ("federate.carry",),
    "session_simulate.start_simulation": ("train.start",),
    "session_clock.status": ("site.read",),
    "session_clock.repair": ("clock.repair",),
    "session_jobs.meter": ("site.read",),
    "session_log.prove_growth": ("audit.export",),
    "session_log.check_growth": (),
    "session_log.find_prompt": ("audit.find",),
    "session_log.repair": ("audit.repair",),
    "session_log.repair_waiting": ("audit.verify",),
    "session_audit.told_of": (),
    "session_audit.key_given": (),
    "session_docs.start_indexing": ("docs.change",),
    "session_docs.document_collections": ("site.read",),
    "session_docs.collection": ("site.read",),
    "session_docs.search": ("record.read",),
    "session_docs.open_passage": ("record.read",),
    "session_docs.remove_collection": ("docs.change",),
    "session_feedback.list_feedback": ("site.read",),
    "session_feedback.read_feedback": ("record.read",),
    "session_feedback.judge": ("feedback.review",),
    "session_feedback.export": ("feedback.export",),
    "session.plan_removal": ("site.read",),
    "session.remove_model": ("model.remove",),
    "session_airgap.check": ("airgap.check",),
    "session_airgap.policy": ("site.read",),
    "session_airgap.set_policy": ("airgap.off",),
    "session_airgap.landlock": (),
    "session_audit.verify": ("audit.verify",),
    "session_audit.verify_file": (),
    "session_audit.checkpoint": ("audit.export",),
    "session_audit.witness": ("audit.export",),
    "session_audit.export": ("audit.export",),
    "session_supply.check": ("supply.check",),
    "session_supply.record": ("supply.record",),
    "session_supply.sbom": (),
    "session_evidence.write": ("evidence.write",),
    "session_evidence.check": (),
    "session_federate.init": ("federate.coordinate",),
    "session_federate.task_of": ("site.read",),
    "session_federate.request": ("federate.take-part",),
    "session_federate.approve": ("federate.enrol",),
    "session_federate.drop": ("federate.drop",),
    "session_federate.join": ("federate.take-part",),
    "session_federate.listed": ("site.read",),
    "session_federate.status": ("site.read",),
    "session_federate.check": ("site.read",),
    "session_federate.start": ("federate.coordinate", "federate.take-part"),
    "session_federate.pause": ("federate.veto",),
    "session_federate.veto": ("federate.veto",),
    "session_federate.leave": ("federate.veto",),
    "session_federate.end": ("federate.coordinate",),
    "session_federate.ended": ("federate.veto",),
    "session_blind.comparisons": ("report.read",),
    "session_blind.comparison": ("report.read",),
    "session_blind.begin": ("evaluate.start",),
    "session_blind.question": ("record.read",),
    "session_blind.choose": ("evaluate.start",),
    "session_privacy.charges": ("site.read",),
    "session_privacy.privacy_audit": ("report.read",),
    "session_privacy.newest_trained": (),
    "session_privacy.export_privacy": ("report.export",),
    "session_reports.report": ("report.read",),
    "session_reports.export_page": ("report.export",),
    "session_routes.routes": ("site.read",),
    "session_routes.route": ("site.read",),
    "session_routes.make_split": ("route.change",),
    "session_routes.make_hybrid": ("route.change",),
    "session_routes.set_route": ("route.change",),
    "session_routes.roll_back": ("route.change",),
    "session_routes.remove_route": ("route.change",),
    "session_vault.status": (),
    "session_vault.person": (),
    "session_vault.unlock": (),
    "session_vault.lock": (),
    "session_vault.add": ("vault.slots",),
    "session_vault.remove": ("vault.slots",),
    "session_vault.passphrase": (),
    "session_vault.new_recovery": ("vault.slots",),
    "session_vault.recover": (),
    "session_vault.rotate": ("vault.rotate",),
    "session_vault.seal": ("vault.rotate",),
    "session_vault.take": ("record.read",),
    "session_people.initialise": (),
    "session_people.sign_in": (),
    "session_people.rights": (),
    "session_people.fingerprint": (),
    "session_people.follow_people": (),
    "session_people.people": ("site.read",),
    "session_people.site_name": ("site.read",),
    "session_people.alarms": ("site.read",),
    "session_people.requests": ("site.read",),
    "session_people.request": ("site.read",),
    "session_people.add": ("person.add",),
    "session_people.give_role": ("person.role",),
    "session_people.remove": ("person.remove",),
    "session_people.reset": ("person.reset",),
    "session_people.change_passphrase": ("person.passphrase",),
    "session_people.answer": TWO,
    "session_people.break_glass": ("emergency.start",),
    "session_people.end_emergency": ("emergency.start",),
    "session_people.review": ("emergency.review",),
}


def ways() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function and method of the door, however it came there."""
    for file in sorted((ROOT / "tui").glob("session*.py")):
        if file.stem == "session_guard":
            continue
        module = importlib.import_module(f"tui.{file.stem}")
        for owner in (module, Session) if file.stem == "session" else (module,):
            for name, held in vars(owner).items():
                own = inspect.isfunction(held) and held.__module__ == module.__name__
                if own and not name.startswith("_"):
                    yield f"{file.stem}.{name}", held


FOUND = dict(ways())


def test_every_way_through_the_door_is_listed_here_with_its_action() -> None:
    unlocked = [name for name, way in FOUND.items() if not hasattr(way, "actions")]
    assert unlocked == [], "add @acts(ACTION) to these, and list them here"
    assert {name: way.actions for name, way in FOUND.items()} == WAYS
    assert {action for actions in WAYS.values() for action in actions} <= set(TABLE)


def test_the_door_gives_nothing_but_its_ways() -> None:
    """A property or a nested class would be a way without a lock."""
    odd = [name for name, held in vars(Session).items() if not name.startswith("_") and not callable(held)]
    assert odd == []


@pytest.mark.parametrize("name", [name for name, actions in WAYS.items() if actions])
def test_a_way_asks_before_anything_else(name: str, home: Home) -> None:
    site.settle_in(home)
    way = FOUND[name]
    with pytest.raises(NotAllowed, match="Nobody is signed in"):
        way(Session(home.path, "ana"))
    for who, role in site.ROLE_OF.items():
        session = Session(home.path, signer=site.signer(who))
        if any(role in TABLE[action].may for action in WAYS[name]):
            continue
        with pytest.raises(NotAllowed, match="This is not allowed"):
            way(session)
    assert jobs.jobs(home) == []


def test_who_is_signed_in_is_who_is_written_down(home: Home) -> None:
    site.settle_in(home)
    session = Session(home.path, who="olga", signer=site.signer("ana"))
    assert (session.who, session.actor.role) == ("ana", "operator")
    with pytest.raises(NotAllowed, match="not the key"):
        Session(home.path, signer=type(site.signer("ana"))(person="ana", seed=site.SEEDS["eve"]))
    assert Session(home.path).who == "nobody"
    assert session.why_not("data.import") is None
    assert "is for: security-admin" in (session.why_not("key.new") or "")


def test_training_without_privacy_asks_at_the_door_and_then_runs(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.settle_in(home)
    monkeypatch.setattr(jobs, "_spawn", lambda home, job_id: None)
    monkeypatch.setattr("tui.session.checked", lambda home, spec: spec)
    session = Session(home.path, signer=site.signer("ana"))
    spec = {"dataset": "inbox", "base": "b", "settings": {"private": False}}
    with pytest.raises(NeedsApproval) as needs:
        session.start_training(spec)
    shown = approvals.show(home, needs.value.request)
    assert shown.request["content"]["spec"].startswith('{"base": "b", "dataset": "inbox"')
    approvals.vote(home, needs.value.request, site.signer("olga"), yes=True)
    assert session.start_training(spec) == "0001"
    with pytest.raises(NeedsApproval):
        session.start_training(spec)


def test_a_budget_is_raised_by_two_and_lowered_by_the_officer(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from appliance.data import store
    from appliance.privacy import ledger

    site.settle_in(home)

    class Inbox:
        name, units, unit = "inbox", {"train": 1000}, "patient"

    monkeypatch.setattr(store, "get", lambda home, name: Inbox)
    ana, olga = (Session(home.path, signer=site.signer(name)) for name in ("ana", "olga"))
    with pytest.raises(NotAllowed, match="is for: privacy-officer"):
        ana.set_budget("inbox", 4.0)
    olga.set_budget("inbox", 4.0)
    with pytest.raises(NeedsApproval) as needs:
        ana.set_budget("inbox", 6.0)
    approvals.vote(home, needs.value.request, site.signer("olga"), yes=True)
    ana.set_budget("inbox", 6.0)
    found = ledger.budget(home, "inbox")
    assert found is not None and found.epsilon_limit == 6.0
