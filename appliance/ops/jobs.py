"""Starts, lists, stops and resumes jobs: child processes in a session of their own.

A job's state is not stored. It follows from the last event in its file and from whether its process
is alive, so that it is right after kill -9, a power cut or a copied home.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from appliance.core.db import reading, transaction
from appliance.core.errors import ApplianceError, ConfigWrong, NotAllowed, NotFound
from appliance.core.events import ENDS, Event, append_event, now, read_events
from appliance.core.files import write_json
from appliance.core.home import Home
from appliance.core.offline import ENVIRONMENT
from appliance.core.processes import alive, began, gone
from appliance.core.sealing import check_unlocked
from appliance.security import audit
from appliance.security.people import guard, orders
from appliance.security.people.signing import Signer

_seen: dict[Path, tuple[int, tuple[Event, ...]]] = {}  # event files read so far: offset, events
_NEWEST = "SELECT * FROM jobs ORDER BY CAST(id AS INTEGER) DESC LIMIT ? OFFSET ?"
_children: dict[Path, subprocess.Popen[bytes]] = {}  # by folder; kept so that ended ones can be reaped
STATES = ("waiting", "running", "done", "failed", "stopped", "died")


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job as lists show it. `state` is one of STATES; "died" means: ended without a word."""

    id: str
    kind: str
    title: str
    who: str
    created: str
    state: str
    folder: Path
    events: tuple[Event, ...]

    @property
    def last(self) -> Event:
        """The newest progress event, or an empty one."""
        return next((event for event in reversed(self.events) if event["event"] == "progress"), {})

    @property
    def end(self) -> Event:
        """The event that ended the job, or an empty one."""
        return next((event for event in reversed(self.events) if event["event"] in ENDS), {})


def start(
    home: Home, kind: str, spec: dict[str, Any], *, title: str, who: str, signer: Signer | None = None
) -> str:
    """Start a job of `kind` and return its id. It goes on when this process ends.

    Raises:
        NotAllowed: `who` may not, did not sign, or two people must agree to it.
        Locked: the site is sealed and locked.
    """
    check_unlocked(home.path)
    with transaction(home) as link:
        count = link.execute("SELECT COALESCE(MAX(CAST(id AS INTEGER)), 0) FROM jobs").fetchone()[0]
        job_id = f"{count + 1:04d}"
        link.execute(
            "INSERT INTO jobs (id, kind, title, who, created) VALUES (?, ?, ?, ?, ?)",
            (job_id, kind, title, who, now()),
        )
        order = orders.give(link, home, job=job_id, kind=kind, spec=spec, who=who, by=who, signer=signer)
        audit.record(link, who=who, what="job.start", target=job_id, kind=kind, title=title)
    folder = home.jobs / job_id
    folder.mkdir(mode=0o700, exist_ok=True)
    write_json(folder / "spec.json", {"kind": kind, "who": who, "spec": spec})
    orders.keep(folder, order)
    _spawn(home, job_id)
    return job_id


def resume(home: Home, job_id: str, *, who: str, signer: Signer | None = None) -> None:
    """Run a stopped, failed or dead job again in its folder; it goes on from its last checkpoint.

    Raises:
        NotFound: no such job. ConfigWrong: it is running or already done. NotAllowed: as `start`.
        Locked: the site is locked.
    """
    check_unlocked(home.path)
    job = view(home, job_id)
    if job.state in ("running", "done") or (job.state == "waiting" and _process(home, job.id)):
        raise ConfigWrong(f"Job {job.id} is {job.state}.", "Only a job that ended early can be resumed.")
    with transaction(home) as link:
        order = orders.give_again(link, home, job.folder, by=who, signer=signer)
        audit.record(link, who=who, what="job.resume", target=job.id)
    orders.keep(job.folder, order)
    _spawn(home, job.id)


def stop(home: Home, job_id: str, *, who: str, patience: float = 20.0) -> JobView:
    """Ask a job to stop, then kill it after `patience` seconds; what it finished is kept.

    Raises:
        NotFound: no such job. ConfigWrong: it is not running. NotAllowed: `who` may not.
        LogDamaged, NoRoom: it could not be logged; the job was asked to stop all the same.
    """
    job = view(home, job_id)
    process = _process(home, job_id)
    if process is None:
        raise ConfigWrong(f"Job {job_id} is not running (it is {job.state}).", "See `cloister job list`.")
    try:
        with transaction(home) as link:
            guard.spend(link, home, who, "job.stop-own" if job.who == who else "job.stop", job.id)
            audit.record(link, who=who, what="job.stop", target=job_id)
    except NotAllowed:
        raise
    except ApplianceError:  # a log that takes nothing must not keep a job running
        process.send_signal(signal.SIGTERM)
        raise
    process.send_signal(signal.SIGTERM)
    if not _ended(process, patience):
        for child in [*process.children(recursive=True), process]:
            child.kill()
        _ended(process, patience)
        append_event(job.folder / "events.jsonl", "stopped", reason="killed")
    return view(home, job_id)


def _ended(process: psutil.Process, patience: float) -> bool:
    """Whether a process ends within `patience` seconds; one that its parent has not reaped has ended."""
    limit = time.monotonic() + patience
    while process.is_running() and not gone(process.pid):
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)
    return True


def view(home: Home, job_id: str) -> JobView:
    """One job; `job_id` may leave out leading zeros.

    Raises:
        NotFound: there is none.
    """
    with reading(home) as link:
        row = link.execute("SELECT * FROM jobs WHERE id = ?", (job_id.zfill(4),)).fetchone()
    if row is None:
        raise NotFound(f"There is no job {job_id}.", "See `cloister job list`.")
    return _view(home, row)


def jobs(home: Home, limit: int = 200) -> list[JobView]:
    """The newest jobs, newest first."""
    with reading(home) as link:
        rows = link.execute(_NEWEST, (limit, 0)).fetchall()
    return [_view(home, row) for row in rows]


def older(home: Home, limit: int) -> tuple[list[JobView], int]:
    """Of the jobs older than the newest `limit`: those that run, newest first, and how many do not."""
    with reading(home) as link:
        rows = link.execute(_NEWEST, (-1, limit)).fetchall()
    found = [_view(home, row) for row in rows if alive(row["pid"], row["pid_started"])]
    running = [job for job in found if job.state == "running"]
    return running, len(rows) - len(running)


def wait(home: Home, job_id: str, timeout: float = 3600.0) -> JobView:
    """Wait until a job has ended, at most `timeout` seconds."""
    limit = time.monotonic() + timeout
    while (job := view(home, job_id)).state in ("running", "waiting") and time.monotonic() < limit:
        time.sleep(0.1)
    return job


def pid(home: Home, job_id: str) -> int | None:
    """The process that a job runs in, and its children with it; None where none runs."""
    process = _process(home, job_id)
    return None if process is None else process.pid


def killed_by(job: JobView) -> str | None:
    """The signal that ended a job, where this process started it; nobody else is told by the system."""
    child = _children.get(job.folder)
    code = None if child is None else child.poll()
    return signal.Signals(-code).name if code is not None and code < 0 else None


def _view(home: Home, row: sqlite3.Row) -> JobView:
    folder = home.jobs / row["id"]
    # Liveness is read before the events: the other order could miss an end written in between.
    runs = alive(row["pid"], row["pid_started"])
    events = _events(folder / "events.jsonl")
    return JobView(
        id=row["id"],
        kind=row["kind"],
        title=row["title"],
        who=row["who"],
        created=row["created"],
        state=_state(events, alive=runs, spawned=row["pid"] is not None),
        folder=folder,
        events=events,
    )


def _events(path: Path) -> tuple[Event, ...]:
    """All events of a file; only lines new since the last look are parsed, since faces look often."""
    offset, known = _seen.get(path, (0, ()))
    fresh, offset = read_events(path, offset)
    _seen[path] = (offset, known := (*known, *fresh))
    return known


def _state(events: tuple[Event, ...], *, alive: bool, spawned: bool) -> str:
    marks = [event["event"] for event in events if event["event"] in ("started", *ENDS)]
    if marks and marks[-1] in ENDS and not (alive and marks[-1] != "done"):
        return str(marks[-1])
    if alive:
        return "running" if marks else "waiting"
    return "died" if spawned else "waiting"


def _spawn(home: Home, job_id: str) -> None:
    folder = home.jobs / job_id
    environment = {**os.environ, **ENVIRONMENT, "CLOISTER_HOME": str(home.path)}
    with (folder / "log.txt").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "appliance.ops.worker", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    if before := _children.get(folder):  # ended for all to see, perhaps with threads that still end
        before.wait()
    for place in [place for place, old in _children.items() if old.poll() is not None]:
        del _children[place]
    _children[folder] = child
    with transaction(home) as link:
        link.execute(
            "UPDATE jobs SET pid = ?, pid_started = ? WHERE id = ?",
            (child.pid, began(child.pid), job_id),
        )


def _process(home: Home, job_id: str) -> psutil.Process | None:
    with reading(home) as link:
        row = link.execute("SELECT pid, pid_started FROM jobs WHERE id = ?", (job_id.zfill(4),)).fetchone()
    return psutil.Process(row["pid"]) if alive(row["pid"], row["pid_started"]) else None
