"""Whether the process of a job still runs.

A number alone may have been given to another process since, so the time of its start is kept with it: in
clock ticks since the machine started (proc(5), starttime), which no setting of the clock changes.
"""

from __future__ import annotations

from pathlib import Path

_STATE, _START = 0, 19  # of the fields behind the name


def began(pid: int) -> float:
    """When a process began.

    Raises:
        ProcessLookupError: there is none.
    """
    return float(_stat(pid)[_START])


def alive(pid: int | None, start: float | None) -> bool:
    """Whether the process `pid` that began at `start` still runs."""
    try:
        return pid is not None and began(pid) == start and not gone(pid)
    except ProcessLookupError:
        return False


def gone(pid: int) -> bool:
    """Whether there is no such process, or only its exit status is left."""
    try:
        return _stat(pid)[_STATE] in "ZX"
    except ProcessLookupError:
        return True


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    return text.rsplit(")", 1)[1].split()
