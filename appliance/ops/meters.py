"""What a job's processes use of this machine, measured from outside."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

from appliance.core.home import Home
from appliance.ops import jobs


@dataclass(frozen=True, kw_only=True)
class Load:
    """`cores` is how many processors were busy with it since the last reading; `memory` is in bytes."""

    cores: float
    memory: int
    processes: int


class Meter:
    """Reads one job again and again; the first reading only begins the measuring of processors."""

    def __init__(self, home: Home, job_id: str) -> None:
        self._home, self._job = home, job_id
        self._last: tuple[int, float, float] | None = None

    def read(self) -> Load | None:
        """What the job and its children use now; None where it does not run."""
        first = jobs.pid(self._home, self._job)
        if first is None:
            self._last = None
            return None
        used, memory, count = 0.0, 0, 0
        try:
            process = psutil.Process(first)
            for one in [process, *process.children(recursive=True)]:
                try:
                    times = one.cpu_times()
                    used += times.user + times.system
                    memory += one.memory_info().rss
                    count += 1
                except psutil.Error:
                    continue  # it has ended since it was listed
        except psutil.Error:
            return None
        now, last = time.monotonic(), self._last
        self._last = (first, now, used)
        if last is None or last[0] != first or now <= last[1]:
            return Load(cores=0.0, memory=memory, processes=count)
        return Load(cores=max(0.0, used - last[2]) / (now - last[1]), memory=memory, processes=count)
