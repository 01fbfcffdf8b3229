"""A run on two processes is the run of one: the same clipped sums, one ledger, one noise."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import people_support as site
import psutil
import pytest

from appliance.core.home import Home
from appliance.core.job import Job
from appliance.data import job as importing_job
from appliance.models import importing, registry
from appliance.ops import jobs
from appliance.privacy import ledger
from appliance.train import ranks

_CHILD = Path(__file__).with_name("ranks_child.py")
_ROOT = Path(__file__).parents[2]


def computed(folder: Path, processes: int) -> Any:
    target = folder / f"{processes}.npz"
    command = [sys.executable, str(_CHILD), str(target)]
    if processes > 1:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
        command = [*torchrun, f"--nproc-per-node={processes}", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(target)


@pytest.mark.slow
def test_two_processes_give_the_clipped_sums_of_one(tmp_path: Path) -> None:
    one, two = computed(tmp_path, 1), computed(tmp_path, 2)
    assert np.abs(one["gradients"]).max() > 0
    assert np.array_equal(one["gradients"][0], two["gradients"][0]), "integer sums, exact in any order"
    assert np.array_equal(one["gradients"], two["gradients"])
    assert np.array_equal(one["weights"], two["weights"])
    assert not two["apart"].any(), "both processes hold the same weights"
    assert np.array_equal(two["drawn"], 2 * two["sizes"]), "both drew the same sample"


def at_work(folder: Path) -> list[psutil.Process]:
    """Processes that have the job's folder among their words."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if str(folder) in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def until(what: Any, seconds: float = 90.0) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit, "it never came"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_behind_and_goes_on(home: Home) -> None:
    making = Job(id="9001", kind="import", folder=home.jobs / "9001", home=home)
    making.folder.mkdir(parents=True)
    importing_job.run({"demo": True, "name": "inbox", "patients": 160}, making)
    importing.import_base(home, importing.DEMO_BASE, "demo-base", who="test")
    settings = {"steps": 12, "sample_rate": 0.1, "processes": 2}
    spec = {"dataset": "inbox", "base": "demo-base", "name": "tuned", "settings": settings}
    job_id = jobs.start(home, "train", spec, title="train", who="test")
    folder = home.jobs / job_id
    until(lambda: (folder / "checkpoint.safetensors").exists())
    assert len(at_work(folder)) >= 4, "the job, torchrun and two that train"
    worker = next(process for process in at_work(folder) if "appliance.ops.worker" in process.cmdline())
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: not at_work(folder))
    jobs.resume(home, job_id, who="test")
    assert jobs.wait(home, job_id, 120).state == "done"
    privacy = registry.get(home, "tuned").facts["privacy"]
    charged = sum(event["steps"] for event in ledger.events(home, "inbox"))
    assert privacy["steps_released"] <= privacy["steps_charged"] == charged


def test_a_process_of_a_run_that_nobody_ordered_does_not_train(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.settle_in(home)
    folder = home.jobs / "0001"
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps({"kind": "train", "who": "ana", "spec": {}}))
    monkeypatch.setattr(ranks, "die_with_parent", lambda parent: None)
    monkeypatch.setattr("appliance.train.job.run", lambda spec, job: pytest.fail("it ran"))
    umask = os.umask(0o077)
    try:
        assert ranks._main(folder) == 1
    finally:
        os.umask(umask)
    assert json.loads((folder / "ranks.json").read_bytes())["code"] == "not-allowed"
