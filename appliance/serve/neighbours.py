"""The other endpoints of this site: which running job holds a port."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from appliance.core.db import reading
from appliance.core.events import read_events
from appliance.core.home import Home
from appliance.core.processes import alive
from appliance.core.reading import read_bytes


def job_on(home: Home, port: int, default_port: int, *, own: str = "") -> str | None:
    """The id of a running serve job other than our `own` that has `port`, if there is one."""
    with reading(home) as link:
        rows = link.execute(
            "SELECT id, pid, pid_started FROM jobs WHERE kind = 'serve' AND id != ? AND pid IS NOT NULL"
            " ORDER BY id DESC",
            (own,),
        ).fetchall()
    running = [row["id"] for row in rows if alive(row["pid"], row["pid_started"])]
    return next((other for other in running if _port_of(home, other, default_port) == port), None)


def _port_of(home: Home, other: str, default_port: int) -> int | None:
    """Where it says it listens; while it still loads, where it was asked to."""
    folder = home.jobs / other
    events, _ = read_events(folder / "events.jsonl")
    for event in reversed(events):
        if event["event"] == "ready":
            return urlsplit(str(event["url"])).port
        if event["event"] == "started":
            break
    try:
        spec: dict[str, Any] = json.loads(read_bytes(folder / "spec.json"))["spec"]
    except (OSError, ValueError, KeyError):
        return None
    port = spec.get("port")
    return default_port if port is None else int(port)
