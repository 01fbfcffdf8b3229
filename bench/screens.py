"""The screens as a person meets them: the real command on a pseudo-terminal of 80x24, at a busy old site.

The site has 10,000 ended jobs, 10,000 entries of the log and three trainings that run: processes of this
bench that write the events of a real one, five a second each. First paint: from starting the command to
Home's first pane. Key to paint: from a key to the first byte the terminal gets, in the list of jobs. On the
wire: all bytes of twenty seconds of a live training. Targets: 1.0 s, 50 ms (95 %), 8 KiB/s, 120 MB.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from appliance.core.db import transaction
from appliance.core.events import append_event, now
from appliance.core.files import write_json
from appliance.core.home import Home, open_home
from appliance.core.processes import began
from appliance.security import audit
from bench.table import row, show

_ROWS, _RUNNING, _KEYS = 10_000, 3, 200
_PAINT, _KEY, _WIRE, _MEMORY = 1.0, 50.0, 8.0, 120.0
_WATCHED = 20.0  # seconds
_WRITER = """
import sys, time
from pathlib import Path
from appliance.core.events import append_event
path, step = Path(sys.argv[1]), 0
append_event(path, "started", kind="train")
while True:
    step += 1
    append_event(path, "progress", stage="train", done=step, total=9000, loss=3.5 / step**0.2,
                 epsilon=step * 8 / 9000, clipped=0.61, tokens_per_second=412.0, units=800,
                 left=1800 - step / 5)
    time.sleep(0.2)
"""


def run(options: Any) -> None:
    """Make the site, drive the screens, print."""
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as place:
        home = open_home(Path(place) / "home")
        _old_site(home)
        with contextlib.ExitStack() as stack:
            for _ in range(_RUNNING):
                stack.enter_context(_training(home))
            show(_measured(home, options.rounds or 5), options.json)


def _old_site(home: Home) -> None:
    with transaction(home) as link:
        for number in range(1, _ROWS + 1):
            link.execute(
                "INSERT INTO jobs (id, kind, title, who, created, pid, pid_started)"
                " VALUES (?, 'evaluate', ?, 'bench', ?, 4194301, 1.0)",
                (f"{number:04d}", f"evaluate lora-{number:04d}", now()),
            )
            audit.record(link, who="bench", what="job.start", target=f"{number:04d}")
    for number in range(_ROWS - 300, _ROWS + 1):  # more than lists read
        folder = home.jobs / f"{number:04d}"
        folder.mkdir()
        write_json(folder / "spec.json", {"kind": "evaluate", "who": "bench", "spec": {}})
        append_event(folder / "events.jsonl", "done", result={})


@contextlib.contextmanager
def _training(home: Home) -> Iterator[None]:
    with transaction(home) as link:
        number = link.execute("SELECT COUNT(*) FROM jobs").fetchone()[0] + 1
    folder = home.jobs / f"{number:04d}"
    folder.mkdir()
    write_json(folder / "spec.json", {"kind": "train", "who": "bench", "spec": {}})
    child = subprocess.Popen([sys.executable, "-c", _WRITER, str(folder / "events.jsonl")])
    try:
        with transaction(home) as link:
            link.execute(
                "INSERT INTO jobs (id, kind, title, who, created, pid, pid_started)"
                " VALUES (?, 'train', 'train inbox', 'bench', ?, ?, ?)",
                (folder.name, now(), child.pid, began(child.pid)),
            )
        yield
    finally:
        child.kill()
        child.wait()


class Screens:
    """The command on a pseudo-terminal; `seen` is all that it has written."""

    def __init__(self, home: Home) -> None:
        self.began = time.monotonic()
        self._end, other = pty.openpty()
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tui.launch"],
            env=dict(os.environ, TERM="xterm-256color", CLOISTER_HOME=str(home.path)),
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
        )
        os.close(other)
        self.seen = b""

    def read(self, seconds: float) -> bytes:
        """What comes first within `seconds`; nothing where nothing does."""
        ready, _, _ = select.select([self._end], [], [], max(0.0, seconds))
        new = os.read(self._end, 65536) if ready else b""
        self.seen += new
        return new

    def until(self, words: bytes, patience: float = 60.0) -> float:
        """Seconds from the start until `words` were written."""
        limit = time.monotonic() + patience
        while words not in self.seen:
            if time.monotonic() > limit:
                raise SystemExit(f"the screens never showed {words.decode()}")
            self.read(0.5)
        return time.monotonic() - self.began

    def quiet(self, seconds: float) -> int:
        """Read for so long; how many bytes came."""
        before, limit = len(self.seen), time.monotonic() + seconds
        while (left := limit - time.monotonic()) > 0:
            self.read(left)
        return len(self.seen) - before

    def key(self, key: bytes) -> float:
        """Seconds from a key to the next byte."""
        pressed = time.monotonic()
        os.write(self._end, key)
        while not self.read(2.0):
            pass
        return time.monotonic() - pressed

    def press(self, keys: bytes) -> None:
        """Press keys and do not wait."""
        os.write(self._end, keys)

    def close(self) -> None:
        """End the command."""
        self.process.kill()
        self.process.wait()
        os.close(self._end)


def _measured(home: Home, rounds: int) -> list[dict[str, Any]]:
    paints = []
    for _ in range(rounds):
        screens = Screens(home)
        paints.append(screens.until(b"Next step"))
        screens.close()
    screens = Screens(home)
    try:
        screens.until(b"Watch job")
        _heavy(screens.process.pid)
        screens.press(b"j")
        screens.until(b"train inbox")
        screens.quiet(2.0)
        times = []
        for number in range(_KEYS):
            times.append(screens.key(b"\x1b[B" if number % 100 < 50 else b"\x1b[A") * 1000)
            screens.quiet(0.1)
        screens.press(b"1\x1b")
        screens.quiet(2.0)
        screens.press(b"\r")
        screens.quiet(5.0)
        wire = screens.quiet(_WATCHED) / _WATCHED / 1024
        memory = psutil.Process(screens.process.pid).memory_info().rss / 1e6
    finally:
        screens.close()
    case = f"80x24, {_RUNNING} jobs, {_ROWS:,} rows"
    return [
        row("screens", case, "first paint/target", statistics.median(paints), _PAINT, "s"),
        row("screens", case, "key to paint, 95 %/target", statistics.quantiles(times, n=20)[-1], _KEY, "ms"),
        row("screens", case, "key to paint, median", statistics.median(times), None, "ms"),
        row("screens", case, "on the wire, live training/target", wire, _WIRE, "KiB/s"),
        row("screens", case, "screen process RSS/target", memory, _MEMORY, "MB"),
    ]


def _heavy(pid: int) -> None:
    maps = Path(f"/proc/{pid}/maps").read_text()
    if found := [name for name in ("/torch/", "/transformers/", "/llama_cpp/") if name in maps]:
        raise SystemExit(f"the screens have loaded {found}")
