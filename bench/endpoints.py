"""Servers for benchmarks, each up for as long as a `with` block lasts: ours, llama-server, the binding's.

Ours is started as a person would, through the session; nothing of appliance.serve is called, so the
figures are of the product as it is installed.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

MODEL = "bench"
_PATIENCE = 120.0
# Flags of our own llama-server that decide its speed; the bare one gets the same.
_SPEED = ("--ctx-size", "--parallel", "--threads", "--threads-batch", "--batch-size", "--ubatch-size")
_SPEED += ("--cache-ram", "--threads-http", "--n-gpu-layers", "--flash-attn")
_SWITCHES = ("--kv-unified", "--no-kv-unified")


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running endpoint; `process` is the one that answers HTTP, `engine` the one that computes."""

    port: int
    key: str
    process: psutil.Process
    engine: psutil.Process
    model: str = MODEL


def demo_model(folder: Path) -> Path:
    """The shipped base as an F16 GGUF file that writes text."""
    from appliance.models.importing import DEMO_BASE
    from quantize.convert import convert
    from quantize.source import open_checkpoint

    folder.mkdir(parents=True, exist_ok=True)
    convert(open_checkpoint(DEMO_BASE), folder / "demo.gguf", "F16", name=MODEL)
    return folder / "demo.gguf"


def random_model(shape: str, folder: Path) -> Path:
    """A Q8_0 GGUF file of a shape of bench/shapes.py with random weights."""
    from bench.quantise import random_base
    from bench.shapes import SHAPES
    from quantize import worker
    from quantize.convert import convert
    from quantize.kernel import quantize_file
    from quantize.source import open_checkpoint

    folder.mkdir(parents=True, exist_ok=True)
    full, small = folder / "f16.gguf", folder / "q8.gguf"
    convert(open_checkpoint(random_base(SHAPES[shape], folder / "base")), full, "F16", name=MODEL)
    names = {"source": str(full), "target": str(small), "kind": "Q8_0"}
    worker.run(quantize_file, doing="Quantising", writes=[folder], **names)
    full.unlink()
    shutil.rmtree(folder / "base")
    return small


@contextlib.contextmanager
def ours(file: Path, home: Path, **spec: Any) -> Iterator[Server]:
    """The product's endpoint on `file`; `spec` goes to the job `serve`."""
    from tui.session import Session

    session = Session(home, who="bench")
    if MODEL not in {model.name for model in session.models()}:
        _register(session, file)
    job = session.start_serving({"model": MODEL, "port": 0, "ungated": True, **spec})
    try:
        ready = _ready(session, job)
        process = _job_process(session.job(job).folder)
        yield Server(
            port=int(ready["url"].rpartition(":")[2]),
            key=new_key(home),
            process=process,
            engine=native_engine(process) or process,
        )
    finally:
        if session.job(job).state in ("running", "waiting"):
            session.stop_job(job)


@contextlib.contextmanager
def bare(file: Path, like: Sequence[str], log: Path) -> Iterator[Server]:
    """llama-server by itself, fresh, on loopback, with the slots, threads and context of the argv `like`."""
    flags: list[str] = []
    for at, word in enumerate(like):
        if word in _SPEED:
            flags += like[at : at + 2]
        elif word in _SWITCHES:
            flags.append(word)
    port = free_port()
    argv = [like[0], "--model", str(file), "--port", str(port), "--offline", "--no-ui", *flags]
    with _child(argv, port, "/health", log) as process:
        yield Server(port=port, key="none", process=process, engine=process)


@contextlib.contextmanager
def binding(python: str, file: Path, context: int, threads: int, log: Path) -> Iterator[Server]:
    """`python -m llama_cpp.server` of another environment, told not to cut streams short."""
    port = free_port()
    argv = [python, "-m", "llama_cpp.server", "--model", str(file), "--model_alias", MODEL]
    argv += ["--port", str(port), "--interrupt_requests", "false", "--n_ctx", str(context)]
    argv += ["--n_threads", str(threads), "--n_threads_batch", str(threads)]
    with _child(argv, port, "/v1/models", log) as process:
        yield Server(port=port, key="none", process=process, engine=process)


def free_port() -> int:
    """A loopback port that nobody had a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def native_engine(process: psutil.Process) -> psutil.Process | None:
    """The llama-server of an endpoint; it is started from a descriptor, which gives it a name of its own."""
    servers = (one for one in process.children(True) if Path(one.cmdline()[0]).name == "llama-server")
    return next(servers, None)


def _register(session: Any, file: Path) -> None:
    from appliance.core.files import sha256_file
    from appliance.models import registry
    from appliance.models.registry import Model

    # Straight into the registry: the checks of an import would need a random model to be a good one.
    size, digest = file.stat().st_size, sha256_file(file)
    registry.add(
        session.home, Model(name=MODEL, kind="gguf", path=file, sha256=digest, size=size), who="bench"
    )


def new_key(home: Path) -> str:
    """A key made by the command line, whose JSON is a promise."""
    argv = [sys.executable, "-m", "tui.launch", "key", "new", "--for", "bench", "--json", "--home", str(home)]
    return str(json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)["key"])


def _ready(session: Any, job: str) -> dict[str, Any]:
    limit = time.monotonic() + _PATIENCE
    while time.monotonic() < limit:
        view = session.job(job)
        for event in view.events:
            if event["event"] == "ready":
                return dict(event)
        if view.state not in ("waiting", "running"):
            raise SystemExit(f"the endpoint did not come up: {view.events[-1:]}")
        time.sleep(0.05)
    raise SystemExit("the endpoint was not ready in time")


def _job_process(folder: Path) -> psutil.Process:
    for process in psutil.process_iter(["cmdline"]):
        if str(folder) in (process.info["cmdline"] or []):
            return process
    raise SystemExit("the job is not running")


@contextlib.contextmanager
def _child(argv: Sequence[str], port: int, path: str, log: Path) -> Iterator[psutil.Process]:
    with log.open("ab") as stream:
        child = subprocess.Popen(argv, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + _PATIENCE
        while not _answers(port, path):
            if child.poll() is not None or time.monotonic() > limit:
                raise SystemExit(f"{argv[0]} did not come up: {log.read_text(errors='replace')[-400:]}")
            time.sleep(0.03)
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _answers(port: int, path: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
