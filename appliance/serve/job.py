"""The job `serve`: one model behind an OpenAI-compatible endpoint, until it is asked to stop.

spec: model; optional host, port, engine, ungated, context, slots, threads, memory_mb, max_tokens,
tls_cert, tls_key. Events: log, ready {url, model, engine}, progress (at most one a second).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import resource
import signal
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import uvicorn

from appliance.core.db import reading, transaction
from appliance.core.errors import GateFailed, ModelRejected, NotFound
from appliance.core.home import Home
from appliance.core.job import Job
from appliance.models import registry
from appliance.models.registry import Model
from appliance.models.task import task_from
from appliance.security import audit
from appliance.security.keys import KeyRing
from appliance.serve.answers import Served, open_model
from appliance.serve.engine import Engine, pick_engine
from appliance.serve.gateway import Limits, make_app
from appliance.serve.header import Header, read_header
from appliance.serve.listen import check_tls, open_port, url_of
from appliance.serve.neighbours import job_on
from appliance.serve.stats import Stats

DEFAULT_HOST, DEFAULT_PORT, DEFAULT_CONTEXT, DEFAULT_SLOTS = "127.0.0.1", 8080, 4096, 4
_LONGEST_HEADER = 1 << 16
_DRAIN_SECONDS = 12  # less than what `cloister job stop` waits before it kills


def run(spec: dict[str, Any], job: Job) -> dict[str, Any]:
    """Serve until SIGTERM or SIGINT, then finish the open answers and return what was done.

    Raises:
        NotFound, ConfigWrong: no such model, or it cannot be served as asked.
        GateFailed: no report lets the model pass. Busy: the port is taken.
        ModelRejected: the file is not the one that was registered. EngineFailed: it does not load.
    """
    _raise_open_files()
    model = choose_model(job.home, spec["model"], gated=not spec.get("ungated"))
    if model.name != spec["model"]:
        job.log(f"Serving {model.name}, the file made from {spec['model']}.")
    certificate, key = spec.get("tls_cert"), spec.get("tls_key")
    if certificate or key:
        check_tls(Path(certificate or ""), Path(key or ""))
    host, port = spec.get("host") or DEFAULT_HOST, spec.get("port")
    listener = open_port(
        host,
        DEFAULT_PORT if port is None else int(port),
        tls=bool(certificate),
        holder=lambda taken: job_on(job, taken, DEFAULT_PORT),
    )
    with closing(listener), closing(KeyRing(job.home)) as ring:
        handle = open_checked(model)
        try:
            _note(job, model, url_of(listener, tls=bool(certificate)), ungated=bool(spec.get("ungated")))
            return asyncio.run(
                _Endpoint(spec, job, model, Path(f"/proc/self/fd/{handle}")).run(listener, ring)
            )
        finally:
            os.close(handle)


def choose_model(home: Home, name: str, *, gated: bool) -> Model:
    """The GGUF entry to serve for `name`: itself, or the smallest file made from it that passed the gate.

    Where that is not asked for (`gated`) and none has, the smallest of all.

    Raises:
        NotFound: no such model, or no file of it. GateFailed: none that may be served.
    """
    entry = registry.get(home, name)
    registry.check_alone(entry)
    files = [entry] if entry.kind == "gguf" else _files_of(home, name)
    if not files:
        raise NotFound(f"{name} has no GGUF file yet.", f"Make one: cloister quantize {name}.")
    passed = [file for file in files if _has_passed(home, file)] or ([] if gated else files)
    if not passed:
        raise _not_passed(home, name, files)
    return min(passed, key=lambda file: file.size)


def open_checked(model: Model) -> int:
    """A descriptor of the model's file, whose bytes are the registered ones.

    The engine reads through it, so that a file put in its place later is not the one served.

    Raises:
        NotFound: the file is gone. ModelRejected: its SHA-256 differs.
    """
    try:
        handle = os.open(model.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as problem:
        raise NotFound(
            f"The file of {model.name} cannot be read: {problem.strerror}.", "Quantise or import it again."
        ) from problem
    with open(handle, "rb", closefd=False) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != model.sha256:
        os.close(handle)
        raise ModelRejected(
            f"The file of {model.name} has changed since it was registered.",
            "Do not use it. Quantise the model again, or import it again.",
        )
    return handle


class _Endpoint:
    """One run of the job: engine, gateway and the events about them."""

    def __init__(self, spec: dict[str, Any], job: Job, model: Model, path: Path) -> None:
        self._spec, self._job, self._model = spec, job, model
        self._header: Header = read_header(path)
        self._stats = Stats()
        memory = spec.get("memory_mb")
        self._engine: Engine = pick_engine(
            spec.get("engine") or "auto",
            path,
            folder=job.folder / "engine",
            context=min(self._header.context, int(spec.get("context") or DEFAULT_CONTEXT)),
            slots=int(spec.get("slots") or DEFAULT_SLOTS),
            threads=spec.get("threads"),
            memory=int(memory) << 20 if memory else None,
            log=job.log,
        )

    async def run(self, listener: socket.socket, ring: KeyRing) -> dict[str, Any]:
        """Serve until asked to stop."""
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        asked = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, asked.set)
        try:
            if await _unless(asked, self._engine.start()):
                task = self._header.task or _task_of(self._model)
                served = await open_model(self._model.name, self._engine, self._header, self._stats, task)
                await self._listen(served, listener, ring, asked)
        finally:
            await self._engine.stop()
        return self._facts() | {"seconds": round(time.monotonic() - self._stats.started, 1)}

    async def _listen(
        self, served: Served, listener: socket.socket, ring: KeyRing, asked: asyncio.Event
    ) -> None:
        certificate = self._spec.get("tls_cert")
        limits = Limits(tokens=int(self._spec.get("max_tokens") or Limits.tokens))
        server = uvicorn.Server(
            uvicorn.Config(
                make_app(served, ring.check, limits),
                lifespan="off",
                log_config=None,
                access_log=False,
                http="h11",  # httptools takes headers of any length
                h11_max_incomplete_event_size=_LONGEST_HEADER,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_DRAIN_SECONDS,
                ssl_certfile=certificate,
                ssl_keyfile=self._spec.get("tls_key"),
                ssl_context_factory=_only_tls_1_3 if certificate else None,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        url = url_of(listener, tls=bool(certificate))
        self._job.emit("ready", url=url, model=self._model.name, engine=self._engine.name)
        telling = asyncio.create_task(self._tell())
        await asyncio.wait([serving, asyncio.create_task(asked.wait())], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        telling.cancel()

    async def _tell(self) -> None:
        """A progress event a second while something changes."""
        said: dict[str, Any] = {}
        tokens, at = 0, time.monotonic()
        while True:
            facts = self._facts()
            if facts != said:
                now, said = time.monotonic(), facts
                rate = (facts["tokens"] - tokens) / (now - at) if now > at else 0.0
                tokens, at = facts["tokens"], now
                count = facts["requests"]
                self._job.progress("serving", count, max(count, 1), tokens_per_second=round(rate, 1), **facts)
            await asyncio.sleep(1)

    def _facts(self) -> dict[str, Any]:
        return {
            "model": self._model.name,
            "engine": self._engine.name,
            "restarts": self._engine.restarts,
            **self._stats.facts(),
        }


def _raise_open_files() -> None:
    """As many connections as the system allows: half-open ones must not use up a low soft limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _note(job: Job, model: Model, url: str, *, ungated: bool) -> None:
    with transaction(job.home) as link:
        audit.record(
            link,
            who=job.who,
            what="serve.start",
            target=model.name,
            sha256=model.sha256,
            url=url,
            ungated=ungated,
        )


def _files_of(home: Home, name: str) -> list[Model]:
    entries = registry.models(home)
    return [entry for entry in entries if entry.kind == "gguf" and entry.parent == name]


def _has_passed(home: Home, model: Model) -> bool:
    with reading(home) as link:
        row = link.execute("SELECT 1 FROM reports WHERE model = ? AND passed = 1 LIMIT 1", (model.name,))
        return row.fetchone() is not None


def _not_passed(home: Home, name: str, files: list[Model]) -> GateFailed:
    """Never measured, or measured and failed: the newest report knows."""
    marks = ", ".join("?" * len(files))
    query = f"SELECT model, path FROM reports WHERE model IN ({marks}) ORDER BY created DESC LIMIT 1"  # noqa: S608
    with reading(home) as link:
        row = link.execute(query, [file.name for file in files]).fetchone()
    if row is None:
        return GateFailed(
            f"{name} has no report that lets it be served.",
            f"Measure it first: cloister evaluate {files[0].name}. Or serve it as it is with --ungated.",
        )
    report = Path(row["path"])
    reason = _first_reason(report.with_suffix(".json"), row["model"]) if report.name else ""
    return GateFailed(
        f"{row['model']} was measured and did not pass the gate{reason and ': '}{reason}.",
        f"See the report: {report}. Train it better and measure again, or serve it as it is with --ungated.",
    )


def _first_reason(report: Path, model: str) -> str:
    """The first demand of the gate that `model` missed; empty when the report does not say."""
    try:
        gates = json.loads(report.read_bytes())["gates"]
        gate = next(gate for gate in gates if gate["model"] == model)
        missed = next((one for one in gate["clauses"] if not one["passed"]), None)
        if missed is None:
            return str(next(iter(gate["notes"]), "")).rstrip(".")
        return f"{missed['name']} needs {missed['need']}, got {missed['got']}"
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return ""


def _task_of(model: Model) -> Any:
    facts = model.facts.get("task")
    return task_from(facts) if facts else None


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
