"""Export or import that dies with SIGKILL at its n-th durable operation: `bundle_kills.py WHAT HOME FILE N`.

Durable operations are counted where the system does them: fsync, rename, replace, mkdir, unlink, and
SQLite's COMMIT. An odd N dies before operation (N + 1) / 2, an even one right after operation N / 2. N 0
never dies and prints how many there were.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundle_support as b

from appliance.core import db
from appliance.core.home import Home, open_home
from appliance.security.bundle.importing import entered, import_bundle, sweep
from appliance.security.bundle.releasing import Request, export
from appliance.security.trust import store

BIG = b"GGUF" + bytes(range(256)) * 9000


class Counter:
    """Counts, and dies when it is time."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, 0

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, counted."""

        def counted(*parts: Any, **rest: Any) -> Any:
            self.count += 1
            if self.at == 2 * self.count - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            done = work(*parts, **rest)
            if self.at == 2 * self.count:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return counted


def arm(at: int) -> Counter:
    """Have every durable operation from now on counted."""
    counter = Counter(at)
    for name in ("fsync", "rename", "replace", "mkdir", "unlink"):
        setattr(os, name, counter.around(getattr(os, name)))

    class Link(sqlite3.Connection):
        def execute(self, statement: str, *parts: Any) -> sqlite3.Cursor:
            run = super().execute
            return (counter.around(run) if statement == "COMMIT" else run)(statement, *parts)

    connect = sqlite3.connect
    db.sqlite3.connect = lambda *parts, **rest: connect(*parts, factory=Link, **rest)  # type: ignore[attr-defined]
    return counter


def request() -> Request:
    """What is exported."""
    return Request(
        sources=tuple(b.contents(BIG, b"{}", b"licence")), facts=b.FACTS, receivers=(b.EDGE.receiver,)
    )


def send(home: Home, file: Path) -> None:
    """Export."""
    export(
        home,
        request(),
        file,
        identity=b.CENTRE,
        who="joe",
        seconds=lambda: b.NOW,
    )


def bring(home: Home, file: Path) -> None:
    """Start up, import, and make something of it."""
    sweep(home)
    trust = store.trust(home, seconds=lambda: b.NOW, audit_time=lambda *parts: 0)
    found = import_bundle(home, file, identity=b.EDGE, trust=trust, who="joe")
    entered(home, found.opened.digest, "lora-0007", who="joe")


def main(what: str, place: str, file: str, at: int) -> None:
    """Do it, and maybe die."""
    home = open_home(Path(place))
    with db.reading(home):
        counter = arm(at)
    (send if what == "export" else bring)(home, Path(file))
    sys.stdout.write(str(counter.count))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
