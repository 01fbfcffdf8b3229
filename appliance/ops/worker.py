"""The process a job runs in: `python -m appliance.ops.worker JOBFOLDER`.

Reads spec.json, finds the job's code by entry point, writes "started", then exactly one of "done",
"failed", "stopped". SIGTERM asks it to stop at the next safe place.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from appliance.core import crash
from appliance.core.errors import (
    ApplianceError,
    ConfigWrong,
    JobFailed,
    NoRoom,
    Stopped,
    lacking,
    out_of_memory,
)
from appliance.core.events import append_event, give_up_spare, keep_spare
from appliance.core.files import sweep, write_json
from appliance.core.home import open_home
from appliance.core.job import Job
from appliance.core.offline import stay_offline
from appliance.core.reading import read_bytes
from appliance.core.sealing import sealed_home
from appliance.ops import data_removal
from appliance.security.airgap.entering import enter_first
from appliance.security.airgap.tripwire import arm
from appliance.security.people import orders


def main(folder: Path) -> int:
    """Run the job in `folder` to its end and return the exit code."""
    os.umask(0o077)
    stay_offline()
    crash.say_no_words()
    home = open_home()
    kept: tuple[int, ...] = ()
    try:
        if sealed_home(home.path):
            from appliance.security.vault.mounted import (
                keep,  # loads cryptography: only where there is a vault
            )

            kept = keep(home.path)
        order = json.loads(read_bytes(folder / "spec.json"))
    except ApplianceError as locked:
        told = {"code": locked.code, "message": locked.message, "hint": locked.hint}
        append_event(folder / "events.jsonl", "failed", **told, exit=locked.exit_code)
        return locked.exit_code
    job = Job(id=folder.name, kind=order["kind"], folder=folder, home=home, who=order["who"])
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        job.emit("started", kind=job.kind)
        keep_spare(folder)
        orders.check(job.home, folder, order)
        _shut_in(job, order["spec"], kept)
        sweep(home.path)
        data_removal.sweep(home)
        result = _code(job.kind)(order["spec"], job)
        write_json(folder / "result.json", result)
    except (Stopped, KeyboardInterrupt):
        job.emit("stopped", reason="asked")
        return Stopped.exit_code
    except Exception as problem:
        failure = _explained(problem, job.id)
        job.emit(
            "failed", code=failure.code, message=failure.message, hint=failure.hint, exit=failure.exit_code
        )
        with suppress(OSError):  # on a full disk the log takes nothing
            sys.stderr.write(crash.trace(problem))
        return failure.exit_code
    finally:
        give_up_spare(folder)
    job.emit("done", result=result)
    return 0


def _shut_in(job: Job, spec: Mapping[str, Any], kept: tuple[int, ...]) -> None:
    """Enter the jail of this kind of job before any of its code is loaded, and say so."""
    for entry in importlib.metadata.entry_points(group="cloister.links", name=job.kind):
        job.line = entry.load()(job, spec)
        kept = (*kept, job.line.fileno()) if job.line else kept
    jail = enter_first(job.home, job.kind, spec, keep=kept)
    job.emit("jail", **({"profile": "off"} if jail is None else asdict(jail)))
    arm(job.emit)


def _code(kind: str) -> Any:
    for entry in importlib.metadata.entry_points(group="cloister.jobs", name=kind):
        return entry.load()
    raise ConfigWrong(f"There is no kind of job called {kind}.", "Install the package again.")


def _explained(problem: Exception, job_id: str) -> ApplianceError:
    """What to tell people: errors of our own as they are, the usual machine troubles by name."""
    if isinstance(problem, ApplianceError):
        return problem
    if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoRoom("The disk is full.", f"Free some space, then run `cloister job resume {job_id}`.")
    if out_of_memory(problem):
        return NoRoom("There is not enough memory.", "Close other programs, or use a smaller base or batch.")
    if isinstance(problem, ModuleNotFoundError):
        return lacking(problem)
    return JobFailed(
        f"The job stopped on {type(problem).__name__}.",
        f"The log says more: `cloister job tail {job_id} --log`.",
    )


def _stop(signum: int, frame: object) -> None:
    raise Stopped("The job was asked to stop.")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
