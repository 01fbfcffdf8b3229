"""Jobs are real child processes; their state follows from what is really there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.events import append_event, read_events
from appliance.core.home import Home
from appliance.core.processes import began
from appliance.ops import jobs

ROWS = "text,label,patient\n" + "".join(
    f"message number {n} about topic {n % 3},topic{n % 3},p{n % 40}\n" for n in range(400)
)


def import_spec(path: Path, label: str = "label") -> dict[str, object]:
    return {
        "path": str(path),
        "demo": False,
        "name": "inbox",
        "columns": {"text": "text", "label": label, "unit": "patient"},
        "unit_is_record": False,
        "seed": 0,
    }


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "inbox.csv"
    path.write_text(ROWS)
    return path


def test_a_job_runs_to_its_result_in_another_process(home: Home, csv: Path) -> None:
    job_id = jobs.start(home, "import", import_spec(csv), title="import inbox", who="mira")
    job = jobs.wait(home, job_id, 60)
    assert (job.state, job.id, job.who) == ("done", "0001", "mira")
    assert job.end["result"]["name"] == "inbox"
    assert job.events[0]["event"] == "started"
    assert (job.folder / "result.json").exists()


def test_a_failed_job_says_what_and_what_next_without_record_text(home: Home, csv: Path) -> None:
    job = jobs.wait(home, jobs.start(home, "import", import_spec(csv, "queue"), title="t", who="m"), 60)
    assert job.state == "failed"
    assert "queue" in job.end["message"] and job.end["hint"] and job.end["exit"] == 4
    assert "message number" not in (job.folder / "events.jsonl").read_text()


def test_a_module_in_its_folder_is_not_run(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can write there (another job, a disk that was away) would have the keys, and no jail."""
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    (home.jobs / "0001").mkdir()
    for name in ("json", "psutil", "appliance"):
        (home.jobs / "0001" / f"{name}.py").write_text("open('ran', 'w').close()\n")
    job = jobs.wait(home, jobs.start(home, "nonsense", {}, title="t", who="m"), 60)
    assert job.id == "0001" and job.state == "failed"
    assert not (job.folder / "ran").exists()


def test_an_unknown_kind_fails_clearly(home: Home) -> None:
    job = jobs.wait(home, jobs.start(home, "nonsense", {}, title="t", who="m"), 60)
    assert job.state == "failed" and "nonsense" in job.end["message"]


def test_stop_ends_a_running_job_and_resume_is_offered(home: Home, csv: Path) -> None:
    job_id = _long_job(home)
    assert jobs.stop(home, job_id, who="m").state == "stopped"
    with pytest.raises(ConfigWrong):
        jobs.stop(home, job_id, who="m")


def test_kill_9_shows_as_died_and_resume_finishes(home: Home) -> None:
    job_id = _long_job(home)
    process = jobs._process(home, job_id)
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    assert jobs.view(home, job_id).state == "died"
    jobs.resume(home, job_id, who="m")
    done = jobs.wait(home, job_id, 120)
    assert done.state == "done"
    with pytest.raises(ConfigWrong):
        jobs.resume(home, job_id, who="m")


def _long_job(home: Home) -> str:
    """An import of generated records large enough to be caught at work."""
    spec = {"path": None, "demo": True, "name": "inbox", "columns": {}, "patients": 6000}
    job_id = jobs.start(home, "import", spec, title="slow", who="m")
    limit = time.monotonic() + 60
    while not jobs.view(home, job_id).last and time.monotonic() < limit:
        time.sleep(0.01)
    assert jobs.view(home, job_id).state == "running"
    return job_id


def test_a_job_outlives_the_process_that_started_it(home: Home, csv: Path) -> None:
    child = os.fork()
    if child == 0:
        jobs.start(home, "import", import_spec(csv), title="t", who="m")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert jobs.wait(home, "1", 60).state == "done"


def test_ids_may_leave_out_zeros_and_unknown_ones_are_refused(home: Home, csv: Path) -> None:
    jobs.start(home, "import", import_spec(csv), title="t", who="m")
    assert jobs.wait(home, "1", 60).id == "0001"
    with pytest.raises(NotFound):
        jobs.view(home, "99")


def test_the_ten_thousandth_job_is_newer_than_the_one_before(home: Home) -> None:
    with transaction(home) as link:
        link.executemany(
            "INSERT INTO jobs (id, kind, title, who, created) VALUES (?, 'import', 't', 'm', '2026-11-26')",
            [("9998",), ("9999",), ("10000",)],
        )
    assert [job.id for job in jobs.jobs(home, 2)] == ["10000", "9999"]
    assert jobs.older(home, 2) == ([], 1)


def test_a_half_written_event_is_neither_read_nor_lost(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_event(path, "progress", done=1)
    with path.open("ab") as stream:
        stream.write(b'{"event": "progr')
    first, offset = read_events(path)
    assert len(first) == 1
    with path.open("ab") as stream:
        stream.write(b'ess", "done": 2}\n')
    second, _ = read_events(path, offset)
    assert [event["done"] for event in second] == [2]


def test_a_job_is_stopped_though_whoever_started_it_does_not_reap_it(home: Home, csv: Path) -> None:
    """The screens hold on to a job that they have started; another shell stops it."""
    code = (
        "import json, sys, time\nfrom pathlib import Path\nfrom appliance.core.home import open_home\n"
        "from appliance.ops import jobs\n"
        "home = open_home(Path(sys.argv[1]))\n"
        "print(jobs.start(home, 'serve', {'model': 'none', 'wait': True}, title='t', who='m'), flush=True)\n"
        "time.sleep(120)\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code, str(home.path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert starter.stdout is not None
        job_id = starter.stdout.readline().strip()
        process = jobs._process(home, job_id)
        assert process is not None
        process.suspend()  # it can neither end by itself nor heed a request
        began = time.monotonic()
        job = jobs.stop(home, job_id, who="mira", patience=1.0)
        assert time.monotonic() - began < 30
        assert job.state in ("stopped", "failed", "died") and process.status() == psutil.STATUS_ZOMBIE
    finally:
        starter.kill()
        starter.wait()
        assert starter.stdout is not None
        starter.stdout.close()


def test_a_clock_that_is_set_ends_no_job(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        with transaction(home) as link:
            link.execute(
                "INSERT INTO jobs (id, kind, title, who, created, pid, pid_started)"
                " VALUES ('0001', 'train', '', 'mira', '', ?, ?)",
                (child.pid, began(child.pid)),
            )
        (home.jobs / "0001").mkdir()
        append_event(home.jobs / "0001" / "events.jsonl", "started")
        assert jobs.view(home, "0001").state == "running"
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: time.time())  # as after a clock was set
        assert jobs.view(home, "0001").state == "running"
        child.kill()
        child.wait()
        assert jobs.view(home, "0001").state == "died"
