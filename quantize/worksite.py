"""The folder in which a job's drafts lie: gone when the job ends, and cleared after jobs that were killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.core.errors import NotFound
from appliance.core.files import work_folder
from appliance.core.job import Job
from appliance.ops import jobs

_NAME = "work"


@contextmanager
def worksite(job: Job) -> Iterator[Path]:
    """An empty folder of this job's own, which may hold record text for as long as it works."""
    _clear_the_dead(job)
    work = work_folder(job.folder / _NAME)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _clear_the_dead(job: Job) -> None:
    """Remove what killed jobs left; one that is resumed makes its drafts anew anyway."""
    for left in job.home.jobs.glob(f"*/{_NAME}"):
        try:
            alive = jobs.view(job.home, left.parent.name).state in ("running", "waiting")
        except NotFound:
            continue
        if not alive and left.parent != job.folder:
            shutil.rmtree(left, ignore_errors=True)
