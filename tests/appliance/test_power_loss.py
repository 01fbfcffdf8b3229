"""After a power cut at any moment, with any part of what was not flushed: the site names nothing half made.

What must hold: the registry and the datasets name whole files only, with their hashes; the ledger has charged
no less than was taken; the audit log verifies; and the same work, done again, ends well.
"""

from __future__ import annotations

import csv
import random
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import bundle_support as b
import power_support as power
import pytest
from bundle_kills import bring
from vault_support import sealed_home, unlocked

from appliance.core import files, reading, sealing
from appliance.core.db import reading as database
from appliance.core.errors import ApplianceError
from appliance.core.home import Home, open_home
from appliance.core.job import Job
from appliance.data import store
from appliance.data.job import run as import_data
from appliance.models import registry
from appliance.models.registry import Model
from appliance.privacy import ledger
from appliance.privacy.accountant import Steps
from appliance.security.bundle import importing
from appliance.security.log import verify

COLUMNS = {"text": "message", "label": "queue", "unit": "patient"}
STEPS = 3


@dataclass
class Site:
    """A home, what was taken out of its budget and when, and a source of variety."""

    home: Home
    sources: Path
    chance: random.Random
    trace: power.Trace | None = None

    def __post_init__(self) -> None:
        self.taken: list[int] = []

    def take(self) -> None:
        """A step of training is taken now."""
        if self.trace is not None:
            self.taken.append(len(self.trace.steps))


def import_records(site: Site) -> None:
    folder = site.home.jobs / "0001"
    folder.mkdir(exist_ok=True)
    import_data(
        {"path": str(site.sources / "inbox.csv"), "name": "letters", "columns": COLUMNS},
        Job(id="0001", kind="import", folder=folder, home=site.home),
    )


def train(site: Site) -> None:
    """As training goes about it: charge, take, keep a checkpoint; then the adapter and its entry."""
    folder = site.home.jobs / "0002"
    folder.mkdir(exist_ok=True)
    ledger.open_budget(site.home, "letters", unit="patient", units=1000, delta=None, who="test")
    run = Steps(noise_multiplier=4.0, sample_rate=0.01, steps=20)
    purse = ledger.Purse(site.home, "letters", job="0002", run=run, limit=8.0)
    kept = folder / "checkpoint.safetensors"
    done = int(reading.read_bytes(kept)[:4]) if kept.exists() else 0
    for step in range(done + 1, STEPS + 1):
        purse.charge(1)
        site.take()
        with files.replacing(kept) as draft:
            draft.write_bytes(f"{step:04d}".encode() + site.chance.randbytes(site.chance.randrange(3000)))
    if any(model.name == "tuned" for model in registry.models(site.home)):
        return
    with files.replacing_folder(site.home.models / "tuned") as draft:
        (draft / "adapter_config.json").write_text("{}")
        (draft / "adapter_model.safetensors").write_bytes(site.chance.randbytes(4000))
    path = site.home.models / "tuned"
    sha256 = files.sha256_folder(path)
    registry.add(
        site.home, Model(name="tuned", kind="adapter", path=path, sha256=sha256, size=4002), who="test"
    )
    files.write_json(folder / "result.json", {"name": "tuned"})


def receive(site: Site) -> None:
    with database(site.home) as link:
        if link.execute("SELECT 1 FROM bundles_in WHERE entered IS NOT NULL").fetchone():
            return  # all of it was done before the cut
    bring(site.home, site.sources / "a.clb")


WORK: dict[str, Callable[[Site], None]] = {
    "import": import_records,
    "import, sealed": import_records,
    "train": train,
    "train, sealed": train,
    "bundle": receive,
}


def prepared(folder: Path, what: str, seed: int, held: ExitStack) -> Site:
    chance, sources = random.Random(seed), folder / "sources"
    sources.mkdir()
    if "sealed" in what:
        home, master = sealed_home(folder / "home")
        held.enter_context(unlocked(home, master))
    else:
        home = open_home(folder / "home")
    with database(home):
        pass
    with (sources / "inbox.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["patient", "message", "queue"])
        rows.writerows([f"P{n}", f"cough {chance.random()} of {n}", "ab"[n % 2]] for n in range(60))
    if what == "bundle":
        b.pinned(home, b.CENTRE)
        b.bundle(sources / "a.clb", b.contents(b"GGUF" + chance.randbytes(5000), b"{}", b"licence"))
    return Site(home=home, sources=sources, chance=chance)


def check(site: Site, what: str, taken: int) -> None:
    """What must hold after any fault."""
    home = site.home
    assert verify.verify(home, []).ok
    for dataset in store.datasets(home):
        for split in store.SPLITS:
            store.read(dataset, split)
    for model in registry.models(home):
        registry.intact(home, model.name)
    charged = sum(event["steps"] for event in ledger.events(home, "letters"))
    kept = home.jobs / "0002" / "checkpoint.safetensors"
    step = int(reading.read_bytes(kept)[:4]) if kept.exists() else 0
    assert max(step, taken) <= charged
    if what == "bundle":
        importing.sweep(home)
        check_whole(home)


def check_whole(home: Home) -> None:
    with database(home) as link:
        rows = list(link.execute("SELECT digest FROM bundles_in"))
    for row in rows:
        assert (home.bundles / row["digest"] / "LICENSE").read_bytes() == b"licence"
        assert (home.bundles / row["digest"] / "model.gguf").stat().st_size == 5004


def lose_power(folder: Path, what: str, seed: int, *, every: int = 1) -> int:
    """Record the work once, and look at what is left after every `every`-th cut; how many were looked at."""
    folder.mkdir()
    looked = 0
    with ExitStack() as held:
        site = prepared(folder, what, seed, held)
        with power.recording(site.home.path) as trace:
            site.trace = trace
            WORK[what](site)
        site.trace = None
        shutil.move(site.home.path, folder / "done")
        for cut in list(power.cuts(trace))[seed % every :: every]:
            for chance in (None, random.Random(seed * 100_000 + cut)):
                power.replay(trace, cut, site.home.path, chance)
                open_home(site.home.path)
                check(site, what, sum(at <= cut for at in site.taken))
                looked += 1
            WORK[what](site)
            check(site, what, 0)
    shutil.rmtree(folder)
    return looked


@pytest.mark.parametrize("what", WORK)
def test_a_power_cut_leaves_nothing_half_made(tmp_path: Path, what: str) -> None:
    assert lose_power(tmp_path / "trace", what, 3, every=4) > 10


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("import", lambda patch: patch.setattr(files, "sync", lambda path: None)),
        ("train", lambda patch: patch.setattr(files, "sync", lambda path: None)),
        ("bundle", lambda patch: patch.setattr(importing, "sync", lambda path: None)),
        ("train, sealed", lambda patch: patch.setattr(sealing, "_sync", lambda path: None)),
        ("train", lambda patch: patch.setattr(ledger.Purse, "charge", lambda *parts, **rest: None)),
    ],
)
def test_without_the_flushes_or_the_charge_it_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, change: Callable[[pytest.MonkeyPatch], None]
) -> None:
    change(monkeypatch)
    with pytest.raises((AssertionError, ApplianceError, OSError, ValueError)):
        lose_power(tmp_path / "trace", what, 3)


@pytest.mark.soak
@pytest.mark.parametrize("what", WORK)
def test_no_power_cut_of_two_hundred_recordings_does(tmp_path: Path, what: str) -> None:
    looked = sum(lose_power(tmp_path / f"{seed}", what, seed) for seed in range(42))
    print(f"{what}: 42 recordings, {looked} states of the disk, 0 broken")  # noqa: T201
