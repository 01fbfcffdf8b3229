"""One child process kept alive: killed with us, started again, more and more slowly, when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from appliance.core.errors import EngineFailed
from appliance.core.parent import die_with_parent

_LOG_LIMIT = 1 << 20
_FIRST_DELAY, _LONGEST_DELAY, _LASTED = 0.1, 30.0, 60.0  # seconds


class Supervisor:
    """`argv` run as a child whose output goes to `log_path`; it is ready once `answers()` says so.

    `memory` limits the child's data (heap, caches, not mapped files), in bytes; `files` are open
    descriptors that it inherits; `clear` removes what an earlier run may have left.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        log_path: Path,
        answers: Callable[[], Awaitable[bool]],
        clear: Callable[[], None],
        files: Sequence[int] = (),
        memory: int | None = None,
        patience: float = 600.0,
        log: Callable[[str], None],
    ) -> None:
        self.ready = asyncio.Event()
        self.restarts = 0
        self._argv, self._environment, self._files = list(argv), dict(environment), tuple(files)
        self._name = Path(argv[0]).name
        self._answers, self._clear, self._log, self._log_path = answers, clear, log, log_path
        self._memory, self._patience = memory, patience
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._problem: EngineFailed | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the child."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the child and return when it is ready.

        Raises:
            EngineFailed: it ended, or was not ready in time.
        """
        process = await self._launch()
        self._watch = asyncio.create_task(self._keep(process))

    async def until_ready(self, patience: float = 20.0) -> None:
        """Return when the child is ready.

        Raises:
            EngineFailed: its last start failed, or it takes longer than `patience` seconds.
        """
        if self.ready.is_set():
            return
        if self._problem is not None:
            raise self._problem
        try:
            await asyncio.wait_for(self.ready.wait(), patience)
        except TimeoutError:
            raise EngineFailed(f"{self._name} is being started.", "Ask again in a moment.") from None

    async def stop(self) -> None:
        """End the child."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        self.ready.clear()
        await self._end()

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        delay = _FIRST_DELAY
        while True:
            since = time.monotonic()
            code = await process.wait()
            self.ready.clear()
            self.restarts += 1
            if time.monotonic() - since > _LASTED:
                delay = _FIRST_DELAY
            self._log(f"{self._name} ended ({_ending(code)}); starting it again in {delay:.1f} s")
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY)
            try:
                process = await self._launch()
            except EngineFailed as problem:
                self._problem = problem

    async def _launch(self) -> asyncio.subprocess.Process:
        self._clear()
        with _private_log(self._log_path) as log:
            self._process = process = await self._spawn(log)
        limit = time.monotonic() + self._patience
        while not await self._answers():
            code = process.returncode
            if code is not None or time.monotonic() > limit:
                await self._end()
                what = "was not ready in time" if code is None else f"ended ({_ending(code)})"
                raise EngineFailed(
                    f"{self._name} {what}: {self._log_tail()}",
                    "Memory may be short, or the file damaged; try a smaller context.",
                )
            await asyncio.sleep(0.03)
        self._problem = None
        self.ready.set()
        return process

    async def _spawn(self, log: BinaryIO) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                pass_fds=self._files,
                start_new_session=True,  # ctrl-C is ours to handle, with a drain
                preexec_fn=partial(_bind_to, os.getpid(), self._memory),
            )
        except (OSError, subprocess.SubprocessError) as problem:
            raise EngineFailed(
                f"{self._name} cannot be started: {problem}.", "Run `make install` again."
            ) from problem

    async def _end(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        for stop in (self._process.terminate, self._process.kill):
            with contextlib.suppress(ProcessLookupError):
                stop()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), 5)
                return

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError):
            lines = self._log_path.read_text(errors="replace").strip().splitlines()
            return " | ".join(line.strip() for line in lines[-3:])
        return "no log"


def _private_log(path: Path) -> BinaryIO:
    """The log, appended to unless it has grown long."""
    grown = path.exists() and path.stat().st_size > _LOG_LIMIT
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if grown else os.O_APPEND)
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _bind_to(parent: int, memory: int | None) -> None:
    """In the child before exec: die with the parent, and stay within `memory`."""
    if not die_with_parent(parent):
        os._exit(1)
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
