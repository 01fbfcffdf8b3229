"""What a job is given: its folder, the site's home, a way to tell how far it is.

A job is a function `run(spec, job) -> result` named by an entry point of `cloister.jobs`.
It may be killed at any moment; run again with the same folder it resumes or starts anew.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.core.events import append_event
from appliance.core.home import Home


@dataclass(kw_only=True)
class Job:
    """One running job, as the code inside it sees it.

    `line` leads to a process with the network, for the kinds of job that have one (entry points of
    `cloister.links`): it was started before this process lost its own.
    """

    id: str
    kind: str
    folder: Path
    home: Home
    who: str = "operator"
    line: socket.socket | None = None
    started: float = field(default_factory=time.monotonic)

    def emit(self, event: str, **data: Any) -> None:
        """Append an event. Never put the text of a record in it."""
        append_event(self.folder / "events.jsonl", event, **data)

    def log(self, text: str) -> None:
        """Say one line to whoever follows the job."""
        self.emit("log", text=text)

    def progress(self, stage: str, done: float, total: float, **data: Any) -> None:
        """Say how far `stage` is; `data` are figures worth showing (loss, epsilon, tokens/s)."""
        self.emit("progress", stage=stage, done=done, total=total, **data)
