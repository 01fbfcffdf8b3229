"""The event file of a job: one JSON object a line, appended by the job, tailed by the faces.

A file of zeros beside it is given up for the events that say that the disk is full.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from appliance.core.errors import NoRoom
from appliance.core.files import telling_full

Event = dict[str, Any]
ENDS = ("done", "failed", "stopped")
_SPARE, _SPARE_BYTES = "spare", 1 << 16


def now() -> str:
    """The current time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def append_event(path: Path, event: str, **data: Any) -> None:
    """Append one line in one write, so that readers never meet half of another's.

    Raises:
        NoRoom: the disk is full, and the spare room is used up.
    """
    line = (json.dumps({"at": now(), "event": event, **data}, ensure_ascii=False) + "\n").encode()
    try:
        _append(path, line)
    except NoRoom:
        if not path.with_name(_SPARE).exists():
            raise
        give_up_spare(path.parent)
        _append(path, line)


def _append(path: Path, line: bytes) -> None:
    with telling_full(path.parent):
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line  # the one before was cut short
            if os.write(handle, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)


def keep_spare(folder: Path) -> None:
    """Hold room for a job's last events.

    Raises:
        NoRoom: there is none.
    """
    with telling_full(folder):
        (folder / _SPARE).write_bytes(bytes(_SPARE_BYTES))


def give_up_spare(folder: Path) -> None:
    """Let go of that room."""
    (folder / _SPARE).unlink(missing_ok=True)


def read_events(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Return the whole lines after `offset` and the offset behind the last of them."""
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            chunk = stream.read()
    except FileNotFoundError:
        return [], offset
    end = chunk.rfind(b"\n") + 1
    return list(_parse(chunk[:end])), offset + end


def _parse(chunk: bytes) -> Iterator[Event]:
    """A line cut short by a crash is skipped: events are progress, not records."""
    for line in chunk.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            yield event
