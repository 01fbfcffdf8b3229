"""A clock that is ten years off, or goes back: what expired stays so, and setting it right is enough.

Each command is a process whose clock is shifted before anything of the product is loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
YEARS = 3652 * 86_400

SHIFT = """
import datetime, json, sys, time
offset, real, plain = float(sys.argv[1]), time.time, datetime.datetime
time.time = lambda: real() + offset
time.time_ns = lambda: int((real() + offset) * 1e9)

class Shifted(plain):
    @classmethod
    def now(cls, tz=None):
        return plain.now(tz) + datetime.timedelta(seconds=offset)

datetime.datetime = Shifted
from datetime import timedelta
from pathlib import Path
from appliance.core.db import reading, transaction
from appliance.core.home import open_home
from appliance.security import audit, keys
from appliance.security.bundle.importing import import_bundle
from appliance.security.log import verify
from appliance.security.trust import clock, store
from appliance.core.errors import ApplianceError
home = open_home(Path(sys.argv[2]))
sys.path.insert(0, sys.argv[3])
import bundle_support as b
"""


def at(home: Path, offset: float, code: str) -> Any:
    """What `code` puts into `told`, run by a process whose clock is `offset` seconds off."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{SHIFT}\n{code}\nprint(json.dumps(told))",
            str(offset),
            str(home),
            str(Path(__file__).parent),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


MAKE = """
soon = keys.utc_now() + timedelta(hours=1)
told = keys.new_key(home, "dms", "mira", expires=soon)[1]
"""
LIVES = "told = keys.check(home, {secret!r}) is not None"
NOTE = """
with transaction(home) as link:
    audit.record(link, who="m", what="test", target="x")
told = verify.verify(home, []).ok
"""


@pytest.mark.parametrize("back", [3600.0 * 3, 86_400.0 * 30, YEARS])
def test_a_key_that_has_expired_is_not_revived_by_a_clock_set_back(tmp_path: Path, back: float) -> None:
    home = tmp_path / "home"
    secret = at(home, 0, MAKE)
    assert at(home, 0, LIVES.format(secret=secret)) is True
    assert at(home, 2 * 3600, NOTE) is True  # the site was at work after the key had ended
    assert at(home, 2 * 3600, LIVES.format(secret=secret)) is False
    assert at(home, 2 * 3600 - back, LIVES.format(secret=secret)) is False


def test_a_clock_ten_years_ahead_ends_keys_and_is_cured_by_setting_it_right(tmp_path: Path) -> None:
    home = tmp_path / "home"
    secret = at(home, 0, MAKE)
    assert at(home, YEARS, LIVES.format(secret=secret)) is False
    assert at(home, YEARS, NOTE) is True
    assert at(home, 0, LIVES.format(secret=secret)) is True
    assert at(home, 60, NOTE) is True  # the log goes on, although its newest entry is of a later time


IMPORT = """
import os
from dataclasses import dataclass
b.pinned(home)
there, made = Path({folder!r}), {made}
file = there / "a.clb"
if not file.exists():
    b.bundle(file, seq=1, created=made - 3600, expires=made + 30 * 86400)
try:
    trust = store.trust(home)
    told = import_bundle(home, file, identity=b.EDGE, trust=trust, who="m").fresh
except ApplianceError as problem:
    told = problem.code
"""


def test_bundles_end_and_begin_by_what_the_site_knows_of_the_time(tmp_path: Path) -> None:
    import time

    home, made = tmp_path / "home", int(time.time())
    bring = IMPORT.format(folder=str(tmp_path), made=made)
    assert at(home, YEARS, bring) == "bundle-expired"
    assert at(home, 0, bring) is True  # and the clock that was ahead has bricked nothing
    assert at(home, -YEARS, bring) is False  # known; the floor is a time that a signer vouched for
    floor = "with reading(home) as link:\n    told = clock.floor(link)"
    assert at(home, -YEARS, floor) >= made - 3600
    assert at(home, 31 * 86_400, NOTE) is True
    (tmp_path / "a.clb").unlink()
    late = bring.replace("seq=1", "seq=2")
    assert at(home, 31 * 86_400, late) == "bundle-expired"
    assert at(home, -YEARS, late) == "bundle-expired"


def test_a_ledger_charges_on_whatever_the_clock_says(tmp_path: Path) -> None:
    home = tmp_path / "home"
    charge = """
from appliance.privacy import ledger
from appliance.privacy.accountant import Steps
ledger.open_budget(home, "inbox", unit="patient", units=1000, delta=None, who="test")
run = Steps(noise_multiplier=1.0, sample_rate=0.1, steps=4)
ledger.Purse(home, "inbox", job="0001", run=run, limit=8.0).charge(1)
told = ledger.budget(home, "inbox").spent()
"""
    spent = [at(home, offset, charge) for offset in (0, YEARS, -YEARS, -3600.0)]
    assert spent == sorted(spent) and len(set(spent)) == 4
    assert at(home, -YEARS, NOTE) is True
