"""Private training runs killed with SIGKILL at random moments, and an account of what that cost.

`python kill_support.py FOLDER KILLS SEED [SPOIL]` prints it as JSON. A run is the training job as it is,
in a child forked from this process, which has imported everything and computed nothing: torch's threads
do not outlive a fork. SPOIL names a function here that breaks the product first, to show that the
account would tell. The witness does not trust the product: before a noise vector is handed out, its
hash is on disk.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open

from appliance.core.errors import BudgetSpent
from appliance.core.home import Home, open_home
from appliance.core.job import Job
from appliance.core.offline import stay_offline
from appliance.data import job as importing_job
from appliance.models import importing, registry
from appliance.privacy import ledger, noise
from appliance.privacy.noise import Keystream
from appliance.train import job as training
from appliance.train import loop

# Imported before the fork, so that a child begins at once.
for _name in ("peft", "scipy.optimize", "matplotlib.backends.backend_agg", "appliance.train.curves"):
    importlib.import_module(_name)
for _name in ("ranks", "result", "run", "setup", "soft", "adapt", "objective"):
    importlib.import_module(f"appliance.train.{_name}")
importlib.import_module("transformers.models.llama.modeling_llama")

STEPS = 5
_SPENT = 3  # exit code
TRAINING = 0.7  # seconds from the first charge to the end, about
SPEC = {
    "dataset": "inbox",
    "base": "demo-base",
    "name": "tuned",
    "settings": {"steps": STEPS, "sample_rate": 0.02, "micro_tokens": 512, "epsilon": 8.0},
}


@dataclass
class Account:
    """What a series of kills came to; `spent` runs lost all that they paid for, and were refused."""

    kills: int = 0
    runs: int = 0
    drawn: int = 0
    charged: int = 0
    under: int = 0
    repeated: int = 0
    spent: int = 0
    corrupt: list[str] = field(default_factory=list)
    where: Counter[str] = field(default_factory=Counter)


def prepared(folder: Path) -> Path:
    """A home with records and a base, to be copied for each run."""
    home = open_home(folder / "template")
    job = Job(id="0001", kind="import", folder=home.jobs / "0001", home=home)
    job.folder.mkdir(parents=True)
    importing_job.run({"demo": True, "name": "inbox", "patients": 160}, job)
    importing.import_base(home, importing.DEMO_BASE, "demo-base", who="test")
    return home.path


def moved(template: Path, target: Path) -> Home:
    """A copy of the home; the registry's paths are told the new place."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(template, target)
    home = open_home(target)
    with sqlite3.connect(home.database) as link:
        link.execute("UPDATE models SET path = ?", (str(home.models / "demo-base"),))
    link.close()
    return home


@contextmanager
def witnessed(path: Path) -> Iterator[None]:
    """Every noise vector leaves its hash in `path`, durably, before the run has it."""
    drawn = noise.discrete_gaussian

    def told(count: int, sigma: float, stream: Any) -> Any:
        vector = drawn(count, sigma, stream)
        with path.open("ab") as witness:
            witness.write(hashlib.sha256(vector.tobytes()).digest())
            witness.flush()
            os.fsync(witness.fileno())
        return vector

    noise.discrete_gaussian = told
    try:
        yield
    finally:
        noise.discrete_gaussian = drawn


def child(home: Home, witness: Path, change: Callable[[], None]) -> int:
    """Start the job in a forked child; its process id."""
    folder = home.jobs / "0002"
    folder.mkdir(exist_ok=True)
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setsid()
        change()
        with witnessed(witness):
            training.run(SPEC, Job(id="0002", kind="train", folder=folder, home=home))
        code = 0
    except BudgetSpent:
        code = _SPENT  # kills have cost it all before one step was kept: refused, as it must be
    except BaseException:
        (folder / "crash.txt").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def kill_runs(
    template: Path, folder: Path, kills: int, seed: int, change: Callable[[], None] = lambda: None
) -> Account:
    """Run, kill, look and run again until `kills` kills have landed."""
    account, chance = Account(), random.Random(seed)
    longest = 2.0
    while account.kills < kills and len(account.corrupt) < 10:
        home, witness = moved(template, folder / "home"), folder / "witness"
        witness.write_bytes(b"")
        account.runs += 1
        while True:
            began = time.monotonic()
            pid = child(home, witness, change)
            if account.kills < kills and chance.random() < 0.9:
                if chance.random() < 0.8:
                    await_charge(home, pid)
                    time.sleep(chance.random() * TRAINING)
                else:
                    time.sleep(chance.random() * longest)
                os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            ended = not os.WIFSIGNALED(status)
            account.kills += not ended
            code = os.WEXITSTATUS(status) if ended else 0
            look(home, witness, account, finished=ended and code != _SPENT)
            if code == _SPENT:
                account.spent += 1
                if (home.jobs / "0002" / "checkpoint.safetensors").exists() or registry_holds(home):
                    account.corrupt.append("a run without budget that has something")
                break
            if ended:
                longest = 0.5 * longest + 0.5 * 1.1 * (time.monotonic() - began)
                if code:
                    account.corrupt.append((home.jobs / "0002" / "crash.txt").read_text()[-600:])
                break
        drawn, charged = counts(home, witness)
        account.drawn, account.charged = account.drawn + drawn, account.charged + charged
    return account


def registry_holds(home: Home) -> bool:
    """Whether the run's model is entered."""
    return any(model.name == "tuned" for model in registry.models(home))


def await_charge(home: Home, pid: int) -> None:
    """Wait until the run charges a step (again), or has ended."""
    before = charges(home)
    while charges(home) == before and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.005)


def charges(home: Home) -> int:
    """Steps charged so far."""
    return sum(event["steps"] for event in ledger.events(home, "inbox"))


def counts(home: Home, witness: Path) -> tuple[int, int]:
    """Noise vectors drawn and steps charged."""
    return witness.stat().st_size // 32, charges(home)


def look(home: Home, witness: Path, account: Account, *, finished: bool) -> None:
    """Judge what is on disk after a kill or an end."""
    drawn, charged = counts(home, witness)
    account.under += charged < drawn
    hashes = [witness.read_bytes()[at : at + 32] for at in range(0, 32 * drawn, 32)]
    account.repeated += len(hashes) - len(set(hashes))
    with sqlite3.connect(home.database) as link:
        if link.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
            account.corrupt.append("database")
    link.close()
    step, checkpoint = 0, home.jobs / "0002" / "checkpoint.safetensors"
    if checkpoint.exists():
        with safe_open(checkpoint, framework="pt") as stored:
            step = int(stored.metadata()["step"])
        if step > charged:
            account.corrupt.append("a checkpoint ahead of the ledger")
    for line in (
        (home.jobs / "0002" / "events.jsonl").read_bytes().splitlines(keepends=True)
        if (home.jobs / "0002" / "events.jsonl").exists()
        else ()
    ):
        if line.endswith(b"\n"):
            json.loads(line)
    made = [model for model in registry.models(home) if model.name == "tuned"]
    for model in made:
        registry.intact(home, model.name)
        privacy = model.facts["privacy"]
        if not privacy["steps_released"] <= privacy["steps_charged"] == charged:
            account.corrupt.append("a claim that the ledger does not bear out")
    if finished and len(made) != 1:
        account.corrupt.append(f"{len(made)} entries after the end")
    if not finished:
        place = "entered" if made else "before the first charge" if not charged else f"step {step}"
        inside = f", {charged - drawn} charged ahead" if charged > drawn else ""
        account.where[place + inside] += 1


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
    noise.Keystream = lambda key=None: Keystream(bytes(32))  # type: ignore[misc, assignment]


SPOILT = {"": lambda: None, "late": charge_afterwards, "replay": same_noise_at_every_start}

if __name__ == "__main__":
    stay_offline()
    place, how = Path(sys.argv[1]), SPOILT[sys.argv[4] if len(sys.argv) > 4 else ""]
    found = kill_runs(prepared(place), place, int(sys.argv[2]), int(sys.argv[3]), how)
    sys.stdout.write(json.dumps(asdict(found) | {"where": dict(found.where.most_common())}) + "\n")
