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

from appliance.core.crash import no_core
from appliance.core.errors import ApplianceError, EngineFailed, ModelChanged
from appliance.core.parent import die_with_parent
from appliance.security.airgap.filter import NONE
from appliance.security.airgap.jail import for_child
from appliance.serve.checked import Loading, unchecked
from appliance.serve.childlog import ChildLog
from appliance.serve.unreadable import unreadable

_FIRST_DELAY, _LONGEST_DELAY, _LASTED = 0.1, 30.0, 60.0  # seconds


class Supervisor:
    """`argv` run as a child whose output goes to `log_path`; it is ready once `answers()` says so.

    `memory` limits the child's data (heap, caches, not mapped files), in bytes; `files` are open
    descriptors that it inherits, and every start is `loading` them; `clear` removes what an earlier run
    may have left. A child that asks
    for more than `memory`, or that the kernel kills because the machine has no more, ends like any
    other: its open requests fail, and it is started again after 0.1 s, then 0.2 s, up to 30 s; a
    minute of life sets that back.
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
        loading: Loading = unchecked,
        memory: int | None = None,
        patience: float = 600.0,
        log: Callable[[str], None],
    ) -> None:
        self.ready = asyncio.Event()
        self._refused = asyncio.Event()  # its files have changed: nobody need wait
        self.restarts = 0
        self.starts = 0  # how often a child became ready: each knows nothing of the one before
        self._argv, self._environment, self._files = list(argv), dict(environment), tuple(files)
        self._loading = loading
        self._name = Path(argv[0]).name
        self._answers, self._clear, self._log = answers, clear, log
        self._output = ChildLog(log_path)
        self._memory, self._patience = memory, patience
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._problem: ApplianceError | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the child, if it lives."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start the child and return when it is ready.

        Raises:
            EngineFailed: it ended, or was not ready in time. ModelChanged: its files are not the registered.
        """
        process = await self._launch()
        self._watch = asyncio.create_task(self._keep(process))

    async def until_ready(self, patience: float = 20.0) -> None:
        """Return when the child is ready.

        Raises:
            EngineFailed: its last start failed, or it takes longer than `patience` seconds.
            ModelChanged: its files are not the registered ones any more.
        """
        if self.ready.is_set():
            return
        if self._problem is not None:
            raise self._problem
        ways = [asyncio.ensure_future(event.wait()) for event in (self.ready, self._refused)]
        try:
            await asyncio.wait(ways, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
        if self.ready.is_set():
            return
        if isinstance(self._problem, ModelChanged):
            raise self._problem
        raise EngineFailed(f"{self._name} is being started.", "Ask again in a moment.")

    async def stop(self) -> None:
        """End the child; `start` may be called again."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
            self._watch = None
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
            except (EngineFailed, ModelChanged) as problem:
                self._problem = problem
                if isinstance(problem, ModelChanged):
                    self._refused.set()

    async def _launch(self) -> asyncio.subprocess.Process:
        try:
            async with self._loading():
                process = await self._load()
        except ModelChanged:
            await self._end()
            raise
        except OSError as problem:  # of the socket's folder
            await self._end()
            raise EngineFailed(
                f"{self._name} cannot be started: {problem.strerror}.", "See whether the disk is whole."
            ) from problem
        self._problem = None
        self._refused.clear()
        self._output.quiet = True
        self.starts += 1
        self.ready.set()
        return process

    async def _load(self) -> asyncio.subprocess.Process:
        self._clear()
        self._process = process = await self._spawn()
        if process.stdout is not None:
            self._output.follow(process.stdout)
        limit = time.monotonic() + self._patience
        while not await self._answers():
            code = process.returncode
            if code is not None or time.monotonic() > limit:
                await self._end()
                await self._output.ended()
                what = "was not ready in time" if code is None else f"ended ({_ending(code)})"
                raise EngineFailed(
                    f"{self._name} {what}: {self._output.tail()}",
                    "Memory may be short, or the file damaged; try a smaller context."
                    if self._memory is None
                    else f"It may have {self._memory >> 20} MiB (--memory-mb), which may be too little.",
                )
            await asyncio.sleep(0.03)
        return process

    async def _spawn(self) -> asyncio.subprocess.Process:
        try:
            with contextlib.suppress(OSError), unreadable(Path(self._argv[0])) as copy:
                return await self._exec(f"/proc/self/fd/{copy}", copy)
            self._log(f"{self._name} can be looked into by this account: no program is run from memory here")
            return await self._exec(self._argv[0])
        except (OSError, subprocess.SubprocessError) as problem:
            raise EngineFailed(
                f"{self._name} cannot be started: {problem}.", "Run `make install` again."
            ) from problem

    async def _exec(self, program: str, *more: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._argv,
            executable=program,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
            pass_fds=(*self._files, *more),
            start_new_session=True,  # ctrl-C is ours to handle, with a drain
            preexec_fn=partial(_bind_to, os.getpid(), self._memory, for_child(NONE)),
        )

    async def _end(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        for stop in (self._process.terminate, self._process.kill):
            with contextlib.suppress(ProcessLookupError):
                stop()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), 5)
                return


def _bind_to(parent: int, memory: int | None, shut_in: Callable[[], None]) -> None:
    """In the child before exec: die with the parent, stay within `memory`, connect to nothing at all."""
    if not die_with_parent(parent):
        os._exit(1)
    no_core()  # it would hold what users asked
    if memory is not None:
        _, there = resource.getrlimit(resource.RLIMIT_DATA)
        most = memory if there == resource.RLIM_INFINITY else min(memory, there)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    shut_in()


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
