"""The slots of a llama-server: who has which, what stands there, and that nothing gets in between.

What may be reused is decided in slots.py. Here the server is made to hold just that. Public prefixes
are computed once and kept as slot files in our private folder; they hold nothing of a user.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import ClientResponse

from appliance.core.errors import EngineFailed
from appliance.serve.llama_server import LlamaServer
from appliance.serve.slots import Choice, Slot, choose_slot, stored_prefix

_MOST_PREFIXES = 16
_WORTH = 32  # tokens: a shorter start is computed with the rest sooner than it is put into the slot
_UNKNOWN = -1  # as a slot's adapter
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a request brings to the choice of its slot."""

    prompt: list[int] = field(repr=False)
    owner: str | None
    shared: int
    adapter: int | None


class Places:
    """The `count` slots of `server`, which was opened with `adapters` adapters."""

    def __init__(self, server: LlamaServer, count: int, adapters: int, log: Callable[[str], None]) -> None:
        self._server, self._count, self._adapters, self._log = server, count, adapters, log
        self._room = asyncio.Semaphore(count)
        self._free = set(range(count))
        self._work: dict[int, asyncio.Task[Any]] = {}  # the latest on each slot
        self._slots = self._blank()
        self._known = 0  # which start of the server the slots belong to
        self._prefixes: dict[tuple[int | None, tuple[int, ...]], str] = {}
        self._used = 0

    def sweep(self) -> None:
        """Remove the slot files that were left, and forget them."""
        for file in self._server.place.glob("*.slot"):
            file.unlink(missing_ok=True)
        self._prefixes.clear()

    async def ended(self) -> None:
        """Return when no work is left on any slot."""
        if self._work:
            await asyncio.wait(self._work.values(), timeout=5)

    async def warm(self, prefix: Sequence[int], adapter: int | None) -> None:
        """Compute a public prefix, save it, and put it into every slot that is still unused.

        Raises:
            EngineFailed: the server does not answer. A full disk is only logged.
        """
        key = (adapter, tuple(prefix))
        if len(prefix) < _WORTH or key in self._prefixes:
            return
        public = Wanted(prompt=list(prefix), owner=None, shared=len(prefix), adapter=adapter)
        name = f"{hashlib.sha256(repr(key).encode()).hexdigest()}.slot"
        async with self.take(public) as choice:
            if not await self.held(choice, self._save(choice, public, name)):
                return
        self._prefixes[key] = name
        if len(self._prefixes) > _MOST_PREFIXES:
            oldest = self._prefixes.pop(next(iter(self._prefixes)))
            (self._server.place / oldest).unlink(missing_ok=True)
        for _ in range(self._count - 1):
            async with self.take(public, only_empty=True) as choice:
                if choice.slot >= 0:
                    await self.held(choice, self.prepare(choice, public))
                    self.note(choice, public)

    @asynccontextmanager
    async def take(self, wanted: Wanted, *, only_empty: bool = False) -> AsyncIterator[Choice]:
        """The slot for a request, ours for the block. Until `note` nothing counts as known of it.

        `only_empty`: one that remembers nothing, or slot -1.
        """
        await self._room.acquire()
        slot = -1
        try:
            if self._known != self._server.process.starts:
                self._slots, self._known = self._blank(), self._server.process.starts
            free = {place for place in self._free if not (only_empty and self._slots[place].used)}
            choice = Choice(slot=-1, keep=0, drop=False)
            if free:
                choice = choose_slot(
                    self._slots,
                    free,
                    prompt=wanted.prompt,
                    owner=wanted.owner,
                    adapter=wanted.adapter,
                    shared=wanted.shared,
                    stored=len(self._stored(wanted)),
                )
            slot = choice.slot
            self._free.discard(slot)
            yield choice
        finally:
            work = self._work.get(slot)
            if work is None or work.done():
                self._release(slot)
            else:
                work.add_done_callback(lambda _: self._release(slot))

    def _release(self, slot: int) -> None:
        if slot >= 0:
            self._free.add(slot)
        self._room.release()

    async def held(self, choice: Choice, work: Coroutine[Any, Any, Result]) -> Result:
        """`work` on the slot, brought to its end even if we are stopped: the slot is kept until then.

        Else the server might do it later, when the slot is somebody else's.
        """
        task = self._work[choice.slot] = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_abandoned)
            raise

    async def _save(self, choice: Choice, public: Wanted, name: str) -> bool:
        await self._compute(choice, public)
        self._used += 1
        self.note(choice, public)
        try:
            await self._server.post(f"/slots/{choice.slot}?action=save", {"filename": name})
        except EngineFailed:
            self._log("The public start of the prompts could not be saved; the disk may be full.")
            return False
        return True

    async def prepare(self, choice: Choice, wanted: Wanted) -> tuple[dict[str, Any], int]:
        """Make the slot hold what may be reused and no more.

        Returns what a request has to say to go on there, and how many tokens it at least reuses.
        """
        place, before = choice.slot, self._slots[choice.slot]
        self._used += 1
        # If we are stopped before the server has begun, the memory of another owner may still be there.
        unknown = _UNKNOWN if self._adapters else None
        self._slots[place] = Slot(adapter=unknown, tail=True, used=self._used)
        fields = {"id_slot": place, "cache_prompt": True} | self._lora(wanted.adapter)
        stored = self._stored(wanted)
        if len(stored) > choice.keep or (stored and choice.drop):
            if before.adapter != wanted.adapter:
                # A slot forgets everything when its adapter changes, so that comes first.
                await self._server.post("/completion", {"prompt": [[]], "n_predict": 0, **fields})
            if await self._restored(place, (wanted.adapter, stored)):
                return fields, len(stored)
        elif choice.drop and choice.keep >= _WORTH:
            await self._compute(choice, wanted, choice.keep)
            return fields, choice.keep
        return fields | {"cache_prompt": not choice.drop}, 0 if choice.drop else choice.keep

    def _stored(self, wanted: Wanted) -> tuple[int, ...]:
        saved = [prefix for adapter, prefix in self._prefixes if adapter == wanted.adapter]
        return stored_prefix(saved, wanted.prompt, wanted.shared)

    async def _restored(self, place: int, key: tuple[int | None, tuple[int, ...]]) -> bool:
        try:
            await self._server.post(
                f"/slots/{place}?action=restore", {"filename": self._prefixes.get(key, "")}
            )
        except EngineFailed:
            if not self._server.process.ready.is_set():
                raise
            self._log("A saved public start of prompts cannot be read; it is left out from now on.")
            self._prefixes.pop(key, None)
            return False
        return True

    def note(self, choice: Choice, wanted: Wanted) -> None:
        """Remember that the slot now goes on from this prompt."""
        self._slots[choice.slot] = Slot(
            tokens=wanted.prompt,
            public=min(wanted.shared, len(wanted.prompt)),
            owner=wanted.owner,
            adapter=wanted.adapter,
            tail=wanted.owner is not None,
            used=self._used,
        )

    def _blank(self) -> list[Slot]:
        return [Slot(adapter=_UNKNOWN if self._adapters else None) for _ in range(self._count)]

    async def _compute(self, choice: Choice, wanted: Wanted, count: int | None = None) -> None:
        """Make the slot hold exactly the first `count` tokens (None: all) of the prompt."""
        body = {"prompt": wanted.prompt[:count], "n_predict": 0, "id_slot": choice.slot, "cache_prompt": True}
        await self._server.post("/completion", body | self._lora(wanted.adapter))

    def _lora(self, adapter: int | None) -> dict[str, Any]:
        """Every adapter with its scale: one that a request does not name may count as wanted."""
        if not self._adapters:
            return {}
        return {"lora": [{"id": i, "scale": float(i == adapter)} for i in range(self._adapters)]}


def _abandoned(task: asyncio.Task[Any]) -> None:
    """Close an answer that nobody waits for any more."""
    if not task.cancelled() and task.exception() is None and isinstance(task.result(), tuple):
        answer = task.result()[0]
        if isinstance(answer, ClientResponse):
            answer.close()
