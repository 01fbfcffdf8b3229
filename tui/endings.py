"""How a job ended, for people: its error, or the last thing that it said of one."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import datetime

from appliance.core.errors import ApplianceError, JobFailed, Stopped
from appliance.ops.jobs import JobView, killed_by

# What a crash leaves in a log; other lines are of what went on before it and explain nothing.
_FAILURE = re.compile(
    r"error|exception|fatal|fail|abort|assert|killed|terminat|segmentation|core dumped|bad_alloc"
    r"|out of memory|cannot allocate|no space left|illegal instruction",
    re.IGNORECASE,
)


def failure(job: JobView) -> ApplianceError:
    """The error of a job that ended early, as the job itself raised it."""
    end = job.end
    if job.state == "failed":
        error: ApplianceError = JobFailed(end["message"], end["hint"])
        error.code, error.exit_code = end["code"], end["exit"]
        return error
    if job.state == "stopped":
        return Stopped(f"Job {job.id} was stopped.", f"Go on with `cloister job resume {job.id}`.")
    last, name = last_line(job), killed_by(job)
    how = f"was killed ({name})" if name else "died without a word (killed, or the machine went down)"
    return JobFailed(
        f"Job {job.id} {how}." + (f" Its last line: {last}" if _FAILURE.search(last) else ""),
        f"Go on with `cloister job resume {job.id}`, or run the same command again.",
    )


def last_line(job: JobView) -> str:
    """The last thing that a job said of itself, cut to 160 characters; empty when it said nothing.

    Its own output counts first: that is where a crash below Python leaves its word.
    """
    lines: list[str] = []
    started = next((event["at"] for event in reversed(job.events) if event["event"] == "started"), "")
    with suppress(OSError, ValueError), (job.folder / "log.txt").open("rb") as stream:
        if started and os.fstat(stream.fileno()).st_mtime < datetime.fromisoformat(started).timestamp():
            raise ValueError("what stands there is of an earlier run")
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 4096))
        lines = stream.read().decode(errors="replace").splitlines()
    told = [event["text"] for event in job.events if event["event"] == "log"]
    last = next((line for line in reversed([*told, *lines]) if line.strip()), "")
    return "".join(sign if sign.isprintable() else " " for sign in last).strip()[:160]
