"""kill -9 at any moment of a private run: nothing under-counted, nothing corrupt, no noise twice."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kill_support import Account, kill_runs, prepared

from appliance.privacy import ledger
from appliance.privacy.noise import Keystream
from appliance.train import loop


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("kills"))


def check(account: Account, kills: int) -> None:
    told = {
        "kills": account.kills,
        "runs": account.runs,
        "steps taken": account.drawn,
        "steps charged": account.charged,
        "under-counted": account.under,
        "noise twice": account.repeated,
        "corrupt": account.corrupt,
        "where": dict(account.where.most_common()),
    }
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    assert account.kills == kills
    assert not account.corrupt and account.under == 0 and account.repeated == 0
    assert account.charged >= account.drawn > 0


@pytest.mark.slow
def test_twenty_kills_leave_the_ledger_right(template: Path, tmp_path: Path) -> None:
    check(kill_runs(template, tmp_path, 20, seed=1), 20)


@pytest.mark.soak
def test_a_thousand_kills_leave_the_ledger_right(template: Path, tmp_path: Path) -> None:
    account = kill_runs(template, tmp_path, 1000, seed=2)
    check(account, 1000)
    assert len(account.where) > 5, "the kills landed in many places"


def charge_afterwards() -> None:
    """A ledger that is written after the noise is drawn."""
    purse, update = ledger.Purse.charge, loop.private_update
    waiting: list[Callable[[], None]] = []

    def later(self: Any, steps: int, **facts: Any) -> None:
        waiting.append(lambda: purse(self, steps, **facts))

    def then_charged(*parts: Any) -> loop.NextUpdate:
        draw = update(*parts)

        def both() -> loop.Update:
            found = draw()
            waiting.pop()()
            return found

        return both

    ledger.Purse.charge, loop.private_update = later, then_charged  # type: ignore[method-assign]


def same_noise_at_every_start() -> None:
    """A generator that is restored with the run."""
    loop.Keystream = lambda key=None: Keystream(bytes(32))  # type: ignore[misc, assignment]


@pytest.mark.slow
def test_the_proof_sees_a_ledger_that_is_late(template: Path, tmp_path: Path) -> None:
    assert kill_runs(template, tmp_path, 12, seed=3, change=charge_afterwards).under > 0


@pytest.mark.slow
def test_the_proof_sees_noise_that_comes_again(template: Path, tmp_path: Path) -> None:
    assert kill_runs(template, tmp_path, 6, seed=4, change=same_noise_at_every_start).repeated > 0
