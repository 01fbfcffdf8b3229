"""The job `serve`: models behind an OpenAI-compatible endpoint, until it is asked to stop.

spec: models (or model, a single one); optional host, port, engine, ungated, context, slots, threads,
memory_mb, max_tokens, tls_cert, tls_key, system, embed, cache, most_loaded, sleep_after, watts_per_core,
price_per_kwh. Events: log, ready {url, model, models, routes (of those asked for), engine, ca,
fingerprint}, progress (one a second).
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import uvicorn

from appliance.core.crash import no_core
from appliance.core.errors import Busy, NoRoom
from appliance.core.job import Job
from appliance.core.sealing import place
from appliance.security.airgap.entering import port_is_open
from appliance.security.keys import KeyRing
from appliance.security.log.requests import RequestLog
from appliance.security.supply.baseline import check_at_start
from appliance.serve.admission import Admission
from appliance.serve.cache import Cache
from appliance.serve.counts import Counts
from appliance.serve.documents.embedding import embedder_id
from appliance.serve.endpoint import Endpoint, Limits
from appliance.serve.energy import WATTS_PER_CORE, Meter
from appliance.serve.feedback import sweep
from appliance.serve.gateway import make_app
from appliance.serve.http import Failures
from appliance.serve.library import Library
from appliance.serve.listen import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    check_tls,
    is_here,
    is_loopback,
    open_port,
    url_of,
)
from appliance.serve.neighbours import job_on
from appliance.serve.opening import (
    check_cache,
    choose_all,
    for_documents,
    note,
    open_embedder,
    open_house,
)
from appliance.serve.patience import PatientProtocol
from appliance.serve.routes import Routes

_LONGEST_HEADER = 1 << 16
_LOOK_SECONDS = 20.0  # how old an index may be
_DRAIN_SECONDS = 12  # less than what `cloister job stop` waits before it kills


def run(spec: dict[str, Any], job: Job) -> dict[str, Any]:
    """Serve until SIGTERM or SIGINT, then finish the open answers and return what was done.

    Raises:
        NotFound, ConfigWrong: no such model, or it cannot be served as asked.
        GateFailed: no report lets the model pass. Busy: the port is taken.
        ModelRejected: the file is not the one that was registered. EngineFailed: it does not load.
    """
    _set_limits()
    chosen = choose_all(spec, job.home, job.log)
    cache = check_cache(spec)
    host, port = spec.get("host") or DEFAULT_HOST, spec.get("port")
    with ExitStack() as held:
        tls = _tls(spec, job, host, held)
        listener = open_port(
            host,
            DEFAULT_PORT if port is None else int(port),
            tls=tls is not None,
            holder=lambda taken: job_on(job.home, taken, DEFAULT_PORT, own=job.id),
        )
        held.enter_context(closing(listener))
        port_is_open()  # from here on there is no way out, and no model or request was touched before
        house, embedder = open_house(spec, job, chosen, held), open_embedder(spec, job, held)
        sweep(job.home)
        endpoint = Endpoint(
            house=house,
            admission=Admission(job.home),
            library=Library(home=job.home),
            routes=held.enter_context(closing(Routes(job.home))),
            counts=Counts(job.home),
            cache=None if cache == "off" else Cache(near=cache == "near"),
            log=held.enter_context(closing(RequestLog(job.home, who=f"endpoint {job.id}"))),
            embedder=embedder,
            embedder_name=spec.get("embed") or "",
            limits=Limits(tokens=int(spec.get("max_tokens") or Limits.tokens)),
        )
        note(job, chosen, _url(listener, tls), ungated=bool(spec.get("ungated")))
        ring = held.enter_context(closing(KeyRing(job.home)))
        return asyncio.run(_Running(spec, job, endpoint, tls).run(listener, ring))


@dataclass(frozen=True, kw_only=True)
class _Tls:
    """Files for https; `ca` and `fingerprint` where the site's own authority made them."""

    certificate: str
    key: str
    ca: str | None = None
    fingerprint: str | None = None
    name: str = field(default_factory=socket.gethostname)


def _tls(spec: dict[str, Any], job: Job, host: str, held: ExitStack) -> _Tls | None:
    """What was given, else the site's own certificate beyond this machine, else none.

    A sealed key is opened into memory until `held` ends: uvicorn wants a path.
    """
    certificate, key = spec.get("tls_cert"), spec.get("tls_key")
    if certificate or key:
        check_tls(Path(certificate or ""), Path(key or ""))
        return _Tls(certificate=str(certificate), key=str(key))
    if is_loopback(host):
        return None
    from appliance.serve.certificate import site_certificate  # 8 MB, not needed on loopback

    made = site_certificate(job.home, host, who=job.who)
    key = made.key
    if place(key) is not None:
        from appliance.security.vault.opened import in_memory

        key = held.enter_context(in_memory(key))
    return _Tls(
        certificate=str(made.certificate),
        key=str(key),
        ca=str(made.ca),
        fingerprint=made.fingerprint,
        name=next((name for name in made.names if not is_here(name)), "localhost"),
    )


def _url(listener: socket.socket, tls: _Tls | None) -> str:
    return url_of(listener, tls=tls is not None, name="localhost" if tls is None else tls.name)


class _Running:
    """One run of the job: engines, gateway and the events about them."""

    def __init__(self, spec: dict[str, Any], job: Job, endpoint: Endpoint, tls: _Tls | None) -> None:
        self._job, self._endpoint, self._tls, self._failures = job, endpoint, tls, Failures()
        self._asked = spec.get("models") or [spec["model"]]
        self._meter = Meter(
            watts=float(spec.get("watts_per_core") or WATTS_PER_CORE),
            price=float(spec.get("price_per_kwh") or 0.0),
        )

    async def run(self, listener: socket.socket, ring: KeyRing) -> dict[str, Any]:
        """Serve until asked to stop."""
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        asked = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, asked.set)
        here = self._endpoint
        try:
            if await _unless(asked, self._start()):
                async with here.admission.saving():
                    await self._listen(listener, ring, asked)
        finally:
            facts = self._facts()
            with suppress(NoRoom, Busy):
                here.counts.flush()
            await here.house.stop()
            if here.embedder is not None:
                await here.embedder.stop()
        return facts | {"seconds": round(time.monotonic() - here.stats.started, 1)}

    async def _start(self) -> None:
        """Load the models; nothing is answered by an installation that was changed."""
        job = self._job
        checked = asyncio.ensure_future(asyncio.to_thread(check_at_start, job.home, who=job.who))
        try:
            await self._load()
        finally:  # what was changed may be why nothing loads
            if (found := await checked) is not None:
                job.log(f"{found.files} installed files are unchanged ({found.seconds:.1f} s).")

    async def _load(self) -> None:
        here = self._endpoint
        await here.house.start()
        if here.embedder is not None:
            await here.embedder.start()
            known = embedder_id(self._job.home, here.embedder_name)
            here.library = replace(
                here.library, embedder=for_documents(here.embedder, here.embedder_name, known)
            )

    async def _listen(self, listener: socket.socket, ring: KeyRing, asked: asyncio.Event) -> None:
        tls = self._tls
        server = uvicorn.Server(
            uvicorn.Config(
                make_app(self._endpoint, ring.check, self._failures, self._facts),
                lifespan="off",
                log_config=None,
                access_log=False,
                http=PatientProtocol,  # on h11; httptools takes headers of any length
                ws="none",
                h11_max_incomplete_event_size=_LONGEST_HEADER,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_DRAIN_SECONDS,
                ssl_certfile=tls.certificate if tls else None,
                ssl_keyfile=tls.key if tls else None,
                ssl_context_factory=_only_tls_1_3 if tls else None,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        self._job.emit(
            "ready",
            url=_url(listener, tls),
            model=self._names()[0],
            models=self._names(),
            routes=[name for name in self._asked if self._endpoint.routes.get(name) is not None],
            engine=self._engine_name(),
            ca=tls and tls.ca,
            fingerprint=tls and tls.fingerprint,
        )
        beside = [asyncio.create_task(self._tell()), asyncio.create_task(self._keep_documents())]
        await asyncio.wait([serving, asyncio.create_task(asked.wait())], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)

    async def _tell(self) -> None:
        """A progress event a second while requests come or go."""
        said = -1
        while True:
            stats = self._endpoint.stats
            self._meter.watch(stats.engine_seconds, open_requests=stats.active)
            count = (
                stats.requests
                + self._failures.failed
                + self._failures.refused
                + stats.active
                + self._endpoint.house.restarts
            )
            if count != said:
                said = count
                self._job.progress("serving", stats.requests, max(stats.requests, 1), **self._facts())
            if self._endpoint.counts.due():
                with suppress(NoRoom, Busy):  # it is tried again
                    await asyncio.to_thread(self._endpoint.counts.flush)
            if self._endpoint.cache is not None:
                self._endpoint.cache.sweep()
            await asyncio.sleep(1)

    async def _keep_documents(self) -> None:
        """Documents that change are read again, so that the next answer knows them."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for name in await asyncio.to_thread(self._endpoint.library.refresh, self._job.id, self._job.who):
                self._job.log(f"The documents of {name} have changed and were read again.")

    def _facts(self) -> dict[str, Any]:
        here = self._endpoint
        engines = {name: engine.facts() for name, engine in here.house.engines().items()}
        if here.embedder is not None:
            engines[here.embedder_name] = here.embedder.facts()
        kept = here.cache.facts() if here.cache is not None else {}
        return {
            "model": self._names()[0],
            "engine": self._engine_name(),
            "engines": engines,
            "names": list(dict.fromkeys(offer.file for offer in here.house.offers)),
            "restarts": here.house.restarts,
            "rss_mb": _memory(),
            "documents": here.library.search,
            **here.stats.facts(),
            **{f"cache_{name}": kept[name] for name in ("hits", "near_hits", "misses") if kept},
            **{name: kept[name] for name in ("tokens_saved", "seconds_saved") if kept},
            "errors": self._failures.failed,
            "refused": self._failures.refused,
            **self._meter.facts(
                here.stats.requests,
                worked=here.stats.engine_seconds,
                saved=kept.get("seconds_saved"),
            ),
        }

    def _names(self) -> list[str]:
        return [offer.name for offer in self._endpoint.house.offers]

    def _engine_name(self) -> str:
        return next((engine.name for engine in self._endpoint.house.engines().values()), "none")


def _memory() -> float:
    """MiB that this process and its engines hold."""
    total = 0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return round(total / 2**20, 1)


def _set_limits() -> None:
    """As many connections as the system allows; and no core, which would hold what users asked."""
    no_core()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _unless(asked: asyncio.Event, work: Any) -> bool:
    """Do `work`; False if it was asked to stop first."""
    doing, waiting = asyncio.ensure_future(work), asyncio.create_task(asked.wait())
    await asyncio.wait([doing, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not doing.done():
        doing.cancel()
        await asyncio.wait([doing])
        return False
    doing.result()
    return True


def _only_tls_1_3(config: uvicorn.Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
