"""Starts the processes of a link, keeps them up, and ends them with it."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance.core.offline import ENVIRONMENT

_PR_SET_PDEATHSIG = 1
_LOOK, _GOODBYE = 0.1, 4.0
_SLOWEST = 30.0  # seconds between starts of one that keeps ending


@dataclass
class Child:
    """One process: its name, how it is started, where its output goes, when it is up."""

    name: str
    command: Sequence[str]
    log: Path
    line: Callable[[str], None] | None = None
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    starts: int = 0

    def start(self, folder: Path) -> None:
        """Start it; it dies with this process."""
        home = folder / "flwr"
        home.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            **ENVIRONMENT,
            "FLWR_HOME": str(home),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self.line else log,
                stderr=log,
                env=environment,
                umask=0o077,
                preexec_fn=_die_with_parent,
            )
        self.started, self.starts = time.monotonic(), self.starts + 1
        if self.line and self.process.stdout:
            threading.Thread(target=_follow, args=(self.process.stdout, self.line), daemon=True).start()


@dataclass
class Children:
    """All processes of a link; `told(name, what)` hears of ends and starts."""

    folder: Path
    told: Callable[[str, str], None]
    held: list[Child] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: bool = False

    def __post_init__(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def add(self, name: str, command: Sequence[str], line: Callable[[str], None] | None = None) -> Child:
        """Start one more."""
        child = Child(name=name, command=command, log=self.folder / f"{name}.log", line=line)
        with self._lock:
            child.start(self.folder)
            self.held.append(child)
        self.told(name, "started")
        return child

    def _watch(self) -> None:
        """Look for ever: a child dies with the thread that started it, and calls of Flower's that wait for a
        child may last until that child is started again."""
        while True:
            time.sleep(_LOOK)
            with self._lock:
                if not self._over:
                    self._look()

    def _look(self) -> None:
        """Start again what has ended, later each time it ends soon."""
        for child in self.held:
            if child.process is None or child.process.poll() is None:
                continue
            lived = time.monotonic() - child.started
            wait = min(_SLOWEST, 0.5 * 2.0 ** min(child.starts, 6))
            if lived > _SLOWEST:
                child.starts = 0
            elif lived < wait:
                continue
            self.told(child.name, f"ended with {child.process.returncode}; started again")
            child.start(self.folder)

    def end(self) -> None:
        """End them all, the newest first: a site's node says goodbye through the sidecar before it."""
        with self._lock:
            self._over = True
        for child in reversed(self.held):
            if child.process is None:
                continue
            child.process.terminate()
            try:
                child.process.wait(_GOODBYE)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


def free_port() -> int:
    """A port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _follow(stream: object, line: Callable[[str], None]) -> None:
    for content in stream:  # type: ignore[attr-defined]
        line(content.decode(errors="replace").rstrip("\n"))
