"""Sleep and waking: an engine that nobody asks gives its memory back, and the next request wakes it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable


class Idle:
    """Calls `sleep` when nothing has been open for `after` seconds (None: never), `wake` when asked again."""

    def __init__(
        self,
        after: float | None,
        *,
        sleep: Callable[[], Awaitable[None]],
        wake: Callable[[], Awaitable[None]],
    ) -> None:
        self.asleep = False
        self._after, self._sleep, self._wake = after, sleep, wake
        self._open = 0
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Count from now; the engine has just been started."""
        self.asleep = False
        self._arm()

    @contextlib.asynccontextmanager
    async def awake(self) -> AsyncGenerator[None, None]:
        """Awake for the length of the block.

        Raises:
            EngineFailed: it does not wake.
        """
        self._open += 1
        self._disarm()
        try:
            while self.asleep:
                # The one who woke it may go away in the middle; the others still want it.
                rousing = asyncio.ensure_future(self._rouse())
                rousing.add_done_callback(lambda task: task.cancelled() or task.exception())
                await asyncio.shield(rousing)
            yield
        finally:
            self._open -= 1
            self._arm()

    async def now(self) -> None:
        """Sleep without waiting for the time, unless something is open."""
        self._disarm()
        await self._doze()

    async def end(self) -> None:
        """No more sleep; what is under way is waited for."""
        self._after = None
        self._disarm()
        if self._task is not None:
            await asyncio.wait([self._task])
        async with self._lock:
            self.asleep = False

    async def _rouse(self) -> None:
        async with self._lock:
            if self.asleep:
                await self._wake()
                self.asleep = False

    async def _doze(self) -> None:
        async with self._lock:
            if self._open == 0 and not self.asleep:
                self.asleep = True
                await self._sleep()

    def _arm(self) -> None:
        self._disarm()
        if self._after is not None and self._open == 0 and not self.asleep:
            self._timer = asyncio.get_running_loop().call_later(self._after, self._fall_asleep)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fall_asleep(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._doze())
