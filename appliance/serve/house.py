"""The models of one endpoint and their engines: started when needed, ended when others need the room."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from appliance.core.errors import ModelChanged
from appliance.models.task import Task
from appliance.serve.answers import Served, open_served
from appliance.serve.checked import Loading, unchecked
from appliance.serve.engine import Engine
from appliance.serve.header import Header

PATIENCE = 5.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A model that can be asked for under `name` or one of `aliases`.

    `file` names the engine that computes it; `adapter` is the place of its adapter there, if it has one.
    A key may be for it by its name, an alias, or one of `origins`: what it was made from.
    """

    name: str
    file: str
    header: Header
    aliases: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    task: Task | None = None
    adapter: int | None = None
    sha256: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """All that a key may call it by."""
        return (self.name, *self.aliases, *self.origins)


@dataclass(kw_only=True)
class _Resident:
    """One file that is, or can be, in memory.

    `open` requests use it or wait for it, the first of those that wait since `asked`; it is in memory
    since `loaded`. While `leaving` is there, new requests wait for that: others need the room. `refused`:
    its files were not the registered ones when it was last loaded.
    """

    make: Callable[[], Engine]
    lock: asyncio.Lock
    engine: Engine | None = None
    served: dict[str, Served]
    used: float = 0.0
    loaded: float = 0.0
    asked: float | None = None
    leaving: asyncio.Event | None = None
    open: int = 0
    restarts: int = 0
    refused: bool = False


class House:
    """All `offers`; `engines` makes the engine of each file. At most `most` files are in memory at once.

    A model that is asked for without end keeps no other out: when one has waited for `patience` seconds,
    and the other has been in memory for as long, that takes no new requests, ends what is open and makes
    room. Those who ask for it meanwhile wait in the same line.

    `checks` says of a file what its engine loads it within (checked.py): a model that was refused is looked
    at again before another has to make room for it.

    `system` is the operator's own system message; it stands before every conversation that has none.
    """

    def __init__(
        self,
        offers: Sequence[Offer],
        engines: dict[str, Callable[[], Engine]],
        *,
        most: int | None = None,
        patience: float = PATIENCE,
        system: str = "",
        checks: Mapping[str, Loading] | None = None,
    ) -> None:
        self.offers = tuple(offers)
        self.created = int(time.time())
        self._names = {name: offer for offer in offers for name in (*offer.aliases, offer.name)}
        self._files = {
            file: _Resident(make=make, lock=asyncio.Lock(), served={}) for file, make in engines.items()
        }
        self._most, self._system = most or len(self._files), system
        self._patience, self._checks = patience, checks or {}
        self._room = asyncio.Lock()

    async def start(self) -> None:
        """Load as many files as may be in memory, in the order they were given.

        Raises:
            EngineFailed: one does not load.
        """
        for offer in self.offers:
            if self._loaded() < self._most or self._files[offer.file].engine is not None:
                await self._load(offer)

    def find(self, name: str) -> Offer | None:
        """The offer called `name`."""
        return self._names.get(name)

    def engines(self) -> dict[str, Engine]:
        """The engines in memory, by file."""
        return {name: each.engine for name, each in self._files.items() if each.engine is not None}

    @property
    def restarts(self) -> int:
        """How often engines had to be started again after a failure."""
        return sum(each.restarts for each in self._files.values()) + sum(
            engine.restarts for engine in self.engines().values()
        )

    async def health(self) -> bool:
        """Whether every engine in memory would answer now."""
        engines = self.engines().values()
        return bool(engines) and all([await engine.health() for engine in engines])

    @asynccontextmanager
    async def use(self, offer: Offer) -> AsyncGenerator[Served, None]:
        """The model, loaded if it was not, and kept in memory for as long as the block lasts.

        Raises:
            EngineFailed: it does not load. ModelChanged: its file is not the registered one any more.
        """
        resident = self._files[offer.file]
        while resident.leaving is not None:
            await resident.leaving.wait()
        resident.open += 1
        try:
            yield resident.served.get(offer.name) or await self._load(offer)
        finally:
            resident.open -= 1
            resident.used = time.monotonic()
            if not resident.open:
                resident.asked = None

    async def stop(self) -> None:
        """End every engine."""
        for each in self._files.values():
            await _end(each)

    def _loaded(self) -> int:
        return sum(each.engine is not None for each in self._files.values())

    async def _load(self, offer: Offer) -> Served:
        resident = self._files[offer.file]
        if resident.engine is None and resident.asked is None:
            resident.asked = time.monotonic()
        async with resident.lock:
            if resident.engine is None:
                if resident.refused:
                    async with self._checks.get(offer.file, unchecked)():
                        pass
                async with self._room:
                    await self._make_room(resident)
                    engine = resident.make()
                    try:
                        await engine.start()
                    except BaseException as problem:
                        resident.refused = isinstance(problem, ModelChanged)
                        await _to_its_end(engine.stop())
                        raise
                    resident.engine, resident.asked, resident.refused = engine, None, False
                    resident.used = resident.loaded = time.monotonic()
            if offer.name not in resident.served:
                resident.served[offer.name] = await open_served(
                    offer.name,
                    resident.engine,
                    offer.header,
                    offer.task,
                    adapter=offer.adapter,
                    system=self._system,
                )
            return resident.served[offer.name]

    async def _make_room(self, wanting: _Resident) -> None:
        """End the longest unused engine until one more may be loaded; wait for one that is in use."""
        going: _Resident | None = None
        try:
            while self._loaded() >= self._most:
                loaded = [each for each in self._files.values() if each.engine is not None]
                idle = [each for each in loaded if not each.open]
                if idle:
                    await _end(min(idle, key=lambda each: each.used))
                    continue
                oldest = min(loaded, key=lambda each: each.loaded)
                since = max(oldest.loaded, wanting.asked or oldest.loaded)
                if going is None and time.monotonic() - since >= self._patience:
                    going, oldest.leaving = oldest, asyncio.Event()
                await asyncio.sleep(0.02)
        finally:
            if going is not None and going.leaving is not None:
                going.leaving.set()
                going.leaving = None


async def _end(resident: _Resident) -> None:
    if resident.engine is not None:
        engine, resident.engine = resident.engine, None
        resident.served.clear()
        resident.restarts += engine.restarts
        await _to_its_end(engine.stop())


_endings: set[asyncio.Task[None]] = set()


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do `work` even if who asked for it goes away meanwhile: an engine half stopped would run for ever."""
    task = asyncio.create_task(work)
    _endings.add(task)
    task.add_done_callback(_endings.discard)
    await asyncio.shield(task)
