"""The ledger never under-counts and never lets a limit be passed."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from people_support import lines, settle_in, sql
from test_log_renewal import cut, fill, repair

from appliance.core.db import reading, transaction
from appliance.core.errors import BudgetSpent, NeedsApproval, PrivacyRefused
from appliance.core.home import Home, open_home
from appliance.privacy import ledger, logged, uncharged
from appliance.privacy.accountant import Steps, epsilon
from appliance.security import audit

RUN = Steps(noise_multiplier=1.0, sample_rate=0.5, steps=20)


def purse(home: Home, job: str = "0001", limit: float = 8.0) -> ledger.Purse:
    ledger.open_budget(home, "inbox", unit="patient", units=1000, delta=None, who="test")
    return ledger.Purse(home, "inbox", job=job, run=RUN, limit=limit)


def test_delta_is_a_tenth_of_one_over_n_rounded_down() -> None:
    assert ledger.delta_for(1000) == pytest.approx(1e-4)
    assert ledger.delta_for(1789) == pytest.approx(5.5e-5)
    assert all(ledger.delta_for(n) <= 0.1 / n * (1 + 1e-12) for n in range(1, 5000, 7))


def test_charges_stop_at_the_limit(home: Home) -> None:
    allowed = 0
    pocket = purse(home)
    with pytest.raises(BudgetSpent):
        for _ in range(RUN.steps + 1):
            pocket.charge(1)
            allowed += 1
    delta = ledger.delta_for(1000)
    at = [
        epsilon([Steps(noise_multiplier=1.0, sample_rate=0.5, steps=n)], delta)
        for n in (allowed, allowed + 1)
    ]
    assert at[0] <= 8.0 < at[1]
    found = ledger.budget(home, "inbox")
    assert found is not None and found.spent() == pytest.approx(at[0])


def test_delta_must_be_below_one_over_n(home: Home) -> None:
    with pytest.raises(PrivacyRefused):
        ledger.open_budget(home, "inbox", unit="patient", units=1000, delta=1e-3, who="test")


def test_a_limit_can_be_changed_and_the_change_is_in_the_audit_log(home: Home) -> None:
    pocket = purse(home, limit=math.inf)
    with pytest.raises(BudgetSpent):
        pocket.charge(RUN.steps)
    ledger.set_limit(home, "inbox", 30.0, who="officer")
    purse(home, limit=math.inf).charge(RUN.steps)
    with reading(home) as link:
        assert [entry["what"] for entry in audit.tail(link, 2)] == ["budget.set", "ledger.charge"]
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(PrivacyRefused):
            ledger.set_limit(home, "inbox", wrong, who="officer")


def test_a_lowered_limit_reaches_a_run_under_way(home: Home) -> None:
    pocket = purse(home, limit=math.inf)
    pocket.charge(1)
    ledger.set_limit(home, "inbox", 1.0, who="officer")
    with pytest.raises(BudgetSpent):
        pocket.charge(1)
    with pytest.raises(ValueError, match="cannot be charged"):
        pocket.charge(-5)


def test_unit_and_delta_of_a_budget_cannot_change(home: Home) -> None:
    purse(home)
    with pytest.raises(PrivacyRefused):
        ledger.open_budget(home, "inbox", unit="record", units=1000, delta=None, who="test")
    with pytest.raises(PrivacyRefused):
        ledger.open_budget(home, "inbox", unit="patient", units=1000, delta=1e-6, who="test")


def _spend(path: str, job: str) -> None:
    pocket = purse(open_home(Path(path)), job)
    while True:
        try:
            pocket.charge(1)
        except BudgetSpent:
            return


def test_two_runs_at_once_share_one_limit(home: Home) -> None:
    purse(home)
    spawn = multiprocessing.get_context("spawn")
    children = [spawn.Process(target=_spend, args=(str(home.path), f"000{n}")) for n in (1, 2)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    found = ledger.budget(home, "inbox")
    assert found is not None
    spent = sum(part.steps for part in found.history)
    one_more = Steps(noise_multiplier=1.0, sample_rate=0.5, steps=spent + 1)
    assert found.spent() <= 8.0 < epsilon([one_more], found.delta)


_TAKER = """
import sys
from pathlib import Path
from appliance.core.home import open_home
from appliance.privacy.accountant import Steps
from appliance.privacy.ledger import Purse
purse = Purse(open_home(Path(sys.argv[1])), "inbox", job="1",
              run=Steps(noise_multiplier=50.0, sample_rate=0.01, steps=100000), limit=8.0)
with open(sys.argv[2], "ab", buffering=0) as taken:
    while True:
        purse.charge(1)
        taken.write(b"x")
"""


def _kills(home: Home, tmp_path: Path, count: int) -> None:
    """Kill a process that charges and takes steps; every step taken must have been charged."""
    ledger.open_budget(home, "inbox", unit="patient", units=1000, delta=None, who="test")
    taken = tmp_path / "taken"
    for number in range(count):
        before = taken.stat().st_size if taken.exists() else 0
        child = subprocess.Popen([sys.executable, "-W", "ignore", "-c", _TAKER, str(home.path), str(taken)])
        while not taken.exists() or taken.stat().st_size <= before:
            time.sleep(0.005)
            assert child.poll() is None
        time.sleep(0.003 * (number % 7))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    charged = sum(event["steps"] for event in ledger.events(home, "inbox"))
    assert taken.stat().st_size <= charged <= taken.stat().st_size + count


def test_killed_at_any_moment_no_step_goes_uncharged(home: Home, tmp_path: Path) -> None:
    _kills(home, tmp_path, 3)


@pytest.mark.soak
def test_killed_a_hundred_times_no_step_goes_uncharged(home: Home, tmp_path: Path) -> None:
    _kills(home, tmp_path, 100)


@pytest.mark.parametrize(
    "edit",
    [
        "DELETE FROM ledger WHERE seq = 5",
        "DELETE FROM ledger WHERE seq = 2",
        "DELETE FROM ledger",
        "UPDATE ledger SET noise_multiplier = 1.0000001 WHERE seq = 4",
        "UPDATE ledger SET sample_rate = 0.4999 WHERE seq = 4",
        "UPDATE ledger SET steps = 0 WHERE seq = 4",
        "UPDATE ledger SET dataset = 'other' WHERE seq = 4",
        "UPDATE ledger SET job = '0009' WHERE seq = 4",
    ],
)
def test_a_single_charge_that_is_taken_out_or_changed_is_missed(home: Home, edit: str) -> None:
    pocket = purse(home, limit=math.inf)
    for _ in range(5):
        pocket.charge(1)
    assert lines(home, "ledger.charge") == 5
    purse(home, limit=math.inf).charge(1)  # of a run that goes on
    assert logged.lost(home) == [] == logged.unknown(home)
    sql(home, edit)
    assert logged.lost(home) == ["inbox"]
    with pytest.raises(PrivacyRefused, match="lost charges"):
        purse(home, limit=math.inf).charge(1)


def test_a_charge_that_nobody_made_is_told(home: Home) -> None:
    purse(home).charge(1)
    sql(
        home,
        "INSERT INTO ledger (dataset, job, created, noise_multiplier, sample_rate, draws, steps, facts)"
        " SELECT dataset, job, created, noise_multiplier, sample_rate, draws, 1, facts FROM ledger",
    )
    assert logged.unknown(home) == ["inbox"]
    with pytest.raises(PrivacyRefused, match="does not tell"):
        purse(home).charge(1)


def test_charges_of_an_older_version_go_on_by_what_its_entries_hold(home: Home) -> None:
    """At powers of two the log was told of a job's steps so far, and no row was named."""
    purse(home)
    with transaction(home) as link:
        for steps in range(1, 6):
            link.execute(
                "INSERT INTO ledger"
                " (dataset, job, created, noise_multiplier, sample_rate, draws, steps, facts)"
                " VALUES ('inbox', '0001', '', 1.0, 0.5, 1, 1, '{}')"
            )
            if steps in (1, 2, 4):
                told = {"job": "0001", "steps": steps, "noise_multiplier": "1.0"}
                audit.record(link, who="", what="ledger.charge", target="inbox", **told)
    purse(home, limit=math.inf).charge(1)
    assert logged.lost(home) == [] == logged.unknown(home)
    sql(home, "DELETE FROM ledger WHERE seq IN (1, 2, 3)")
    assert logged.lost(home) == ["inbox"]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("UPDATE budgets SET epsilon_limit = 100", "limit of inbox is 100, and the audit log says 8"),
        ("UPDATE budgets SET epsilon_limit = 8.001", "limit of inbox"),
        ("UPDATE budgets SET delta = 9e-4", "delta"),
        ("UPDATE budgets SET unit = 'record'", "unit|protects"),
        ("DELETE FROM budgets", "is gone"),
    ],
)
def test_a_budget_that_was_edited_is_not_spent_from(home: Home, edit: str, said: str) -> None:
    pocket, late = purse(home), purse(home)
    pocket.charge(1)
    sql(home, edit)
    with pytest.raises(PrivacyRefused, match=said):
        purse(home)  # opens the budget
    if "DELETE" not in edit:
        with pytest.raises(PrivacyRefused, match=said):
            late.charge(1)
    if "limit" in edit:
        with pytest.raises(PrivacyRefused, match=said):
            pocket.charge(1)  # under way, too
        ledger.set_limit(home, "inbox", 8.0, who="officer")  # as the hint says
        pocket.charge(1)
    assert sum(event["steps"] for event in ledger.events(home, "inbox")) == 1 + ("limit" in edit)


def test_to_raise_a_limit_is_measured_by_the_log(tmp_path: Path) -> None:
    home = settle_in(open_home(tmp_path / "site"))
    ledger.open_budget(home, "inbox", unit="patient", units=1000, delta=None, who="ana")
    sql(home, "UPDATE budgets SET epsilon_limit = 100")
    with pytest.raises(NeedsApproval):
        ledger.set_limit(home, "inbox", 50.0, who="olga")
    ledger.set_limit(home, "inbox", 4.0, who="olga")
    assert ledger.budget(home, "inbox") is not None


def test_a_budget_outlives_a_log_that_was_set_aside(home: Home) -> None:
    purse(home).charge(1)
    fill(home)
    cut(home)
    repair(home)
    purse(home).charge(1)
    assert logged.lost(home) == [] == logged.unknown(home)
    sql(home, "DELETE FROM ledger WHERE seq = 1")
    assert logged.lost(home) == ["inbox"]
    sql(home, "UPDATE budgets SET epsilon_limit = 100")
    with pytest.raises(PrivacyRefused, match="says 8"):
        purse(home)


def test_what_was_learnt_uncharged_is_known_by_the_log_too(home: Home) -> None:
    for job, kind in (("0001", uncharged.OPEN), ("0002", uncharged.PUBLIC)):
        uncharged.note(home, "inbox", job=job, kind=kind, who="mira")
        uncharged.note(home, "inbox", job=job, kind=kind, who="mira")
    sql(home, "DELETE FROM uncharged")
    assert uncharged.jobs_of(home, "inbox", uncharged.OPEN) == ["0001"]
    with pytest.raises(PrivacyRefused):
        uncharged.check_private(home, "inbox")
    assert uncharged.jobs_of(home, "inb", uncharged.OPEN) == []
