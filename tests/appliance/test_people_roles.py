"""Every action, every role: who may is spelled here again, from what was decided and not from the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import people_support as site
import pytest

from appliance.core.errors import NotAllowed
from appliance.core.home import Home
from appliance.security.people import guard, orders
from appliance.security.people.roles import OFFICER, ROLES, TABLE, needed

ROOT = Path(__file__).resolve().parents[2]

# Four letters in the order operator, privacy officer, auditor, security admin: y may, - may not; then 2 where
# two people must agree. Operator: import, train, deploy. Officer: budgets, exports, the privacy audit.
# Auditor: read and verify, without anybody's words. Security admin: users and keys, no exports.
MAY = {
    "site.read": "yyyy",
    "report.read": "yyyy",
    "audit.read": "yyyy",
    "audit.verify": "yyyy",
    "record.read": "yy--",
    "audit.export": "-yyy",
    "audit.find": "-yyy",
    "audit.repair": "-y-y2",
    "evidence.write": "-yyy",
    "airgap.check": "yyyy",
    "supply.check": "yyyy",
    "bundle.verify": "yyyy",
    "data.import": "y---",
    "model.import": "y---",
    "train.start": "y---",
    "quantize.start": "y---",
    "evaluate.start": "yy--",
    "privacy.audit": "-y--",
    "serve.start": "y---",
    "docs.change": "y---",
    "route.change": "y---",
    "feedback.review": "yy--",
    "bundle.import": "y---",
    "federate.coordinate": "y---",
    "federate.take-part": "y---",
    "federate.carry": "y---",
    "federate.veto": "yy--",
    "job.stop-own": "yy--",
    "job.stop": "yy-y",
    "job.resume": "yy--",
    "budget.lower": "-y--",
    "budget.raise": "yy--2",
    "train.open": "yy--2",
    "data.public": "yy--2",
    "data.delete": "yy--2",
    "model.remove": "yy--2",
    "bundle.export": "yy--2",
    "feedback.export": "yy--2",
    "report.export": "yyy-",
    "key.new": "---y",
    "key.revoke": "---y",
    "key.own": "yy--",
    "person.add": "-y-y2",
    "person.role": "-y-y2",
    "person.remove": "-y-y2",
    "person.reset": "-y-y2",
    "person.passphrase": "yyyy",
    "trust.add": "-y-y2",
    "trust.revoke": "-y-y",
    "federate.enrol": "-y-y2",
    "federate.drop": "-y-y",
    "trust.rotate": "-y-y2",
    "supply.record": "---y",
    "vault.unlock": "yyyy",
    "vault.lock": "yyyy",
    "vault.slots": "-y-y2",
    "vault.rotate": "---y",
    "airgap.off": "-y-y2",
    "clock.repair": "-y-y2",
    "emergency.start": "yyyy",
    "emergency.review": "-y--",
}


def test_the_table_names_these_actions_and_no_others() -> None:
    assert set(TABLE) == set(MAY)
    assert ROLES == ("operator", "privacy-officer", "auditor", "security-admin")


@pytest.mark.parametrize("action", MAY)
def test_every_role_may_what_was_decided(action: str, home: Home) -> None:
    site.settle_in(home)
    for role, letter in zip(ROLES, MAY[action], strict=False):
        actor = site.actor(home, site.person_of(role))
        assert actor.role == role
        why = guard.why_not(home, actor, action)
        assert (why is None) == (letter == "y"), f"{role} {action}: {why}"
        if letter == "y":
            guard.allow(home, actor, action)
            continue
        assert why is not None and role in why  # in plain words, with the role that does not
        with pytest.raises(NotAllowed) as refused:
            guard.allow(home, actor, action)
        assert refused.value.exit_code == 13 and refused.value.hint
    nobody = guard.identify(home, "ana")
    assert guard.why_not(home, nobody, action) is not None


@pytest.mark.parametrize("action", MAY)
def test_two_people_are_needed_where_it_was_decided(action: str) -> None:
    assert TABLE[action].two == MAY[action].endswith("2")
    if TABLE[action].two:
        assert OFFICER in TABLE[action].may and len(TABLE[action].may) > 1
        assert needed(action).startswith(f"a {OFFICER} and ")


def test_a_security_admin_is_in_no_row_that_takes_something_out() -> None:
    out = [action for action in TABLE if action in ("bundle.export", "feedback.export", "report.export")]
    assert len(out) == 3
    assert all("security-admin" not in TABLE[action].may for action in out)


def test_every_kind_of_job_is_an_action() -> None:
    kinds = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["cloister.jobs"]
    assert len(kinds) >= 8
    for kind in kinds:
        assert all(action in TABLE for action in orders.actions_of(kind, {}))
    with pytest.raises(NotAllowed):
        orders.actions_of("nonsense", {})


def test_a_job_without_privacy_is_more_than_a_training() -> None:
    public = {"public": True, "settings": {"private": False}}
    assert orders.actions_of("train", {"settings": {}}) == ("train.start",)
    assert orders.actions_of("train", {}) == ("train.start",)
    assert orders.actions_of("train", {"settings": {"private": False}}) == ("train.start", "train.open")
    assert orders.actions_of("search", {"public": True}) == ("train.start", "data.public")
    calibrated = {"model": "m", "calibration": "/texts.txt"}
    assert orders.actions_of("quantize", calibrated) == ("quantize.start", "data.public")
    assert orders.target_of(calibrated) == "m"
    assert orders.actions_of("search", public) == ("train.start", "data.public", "train.open")


def test_every_action_that_the_program_asks_for_is_in_the_table() -> None:
    """A misspelled action would be an error on the day it is needed."""
    asked = re.compile(r"(?:acts|spend|require|agree|allow|check)\((?:[\w., ]*, )?\"([a-z]+\.[a-z-]+)\"")
    found = {
        action
        for folder in ("appliance", "quantize", "tui")
        for file in (ROOT / folder).rglob("*.py")
        for action in asked.findall(file.read_text())
    }
    assert len(found) > 15 and found <= set(TABLE)
