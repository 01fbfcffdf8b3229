"""The event file of a job: one JSON object a line, appended by the job, tailed by the faces."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from appliance.core.files import telling_full

Event = dict[str, Any]
ENDS = ("done", "failed", "stopped")


def now() -> str:
    """The current time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def append_event(path: Path, event: str, **data: Any) -> None:
    """Append one line in one write, so that readers never meet half of another's.

    Raises:
        NoRoom: the disk is full.
    """
    line = json.dumps({"at": now(), "event": event, **data}, ensure_ascii=False) + "\n"
    with telling_full(path.parent):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)


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
    """A line cut short by a crash, then written on, is skipped: events are progress, not records."""
    for line in chunk.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            yield event
