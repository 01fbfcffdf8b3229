"""The edge profile, installed afresh: its size on disk, and serving the shipped base on 1 core within 1 GB.

Everything is done by the new installation's own `cloister`, held to one core and to 1 GB of address space
a process. Peaks are the kernel's (VmHWM). Asleep is what the engine takes some seconds after the last
request, where `cloister serve` knows --sleep-after. The host's Python is not counted.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from bench import endpoints
from bench.endpoints import Server
from bench.streams import crowd
from bench.table import row, show

_ROOT = Path(__file__).resolve().parents[1]
_DISK, _GATEWAY, _ASLEEP, _MEMORY = 150.0, 80.0, 60.0, 1 << 30  # MB, MiB, MiB, bytes
_IDLE, _WAIT = 2, 20.0  # seconds until it sleeps, and until it must have
_HEAVY = ("torch", "transformers", "flwr", "peft", "opacus", "sklearn", "scipy")


def run(options: Any) -> None:
    """Install, measure and print."""
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as place:
        folder = Path(place)
        venv = folder / "venv"
        script = str(_ROOT / "packaging" / "install.py")
        subprocess.run([sys.executable, script, str(venv), "edge"], check=True, stdout=subprocess.DEVNULL)
        there = [name for name in _HEAVY if list(venv.glob(f"lib/python3*/site-packages/{name}"))]
        if there:
            raise SystemExit(f"the edge profile brought {there}")
        rows = [row("edge", "fresh installation", "on disk/target", disk(venv) / 1e6, _DISK, "MB")]
        rows += _serving(venv, endpoints.demo_model(folder), folder, options.rounds or 5)
        show(rows, options.json)


def disk(folder: Path) -> int:
    """Bytes of disk that a folder takes, a file with several names counted once."""
    files = {(found.st_dev, found.st_ino): found for found in (p.lstat() for p in folder.rglob("*"))}
    return sum(found.st_blocks * 512 for found in files.values())


def _serving(venv: Path, file: Path, folder: Path, rounds: int) -> list[dict[str, Any]]:
    case = "shipped base, 1 core, 1 GB"
    _cloister(venv, folder, "model", "import", str(file), "--name", endpoints.MODEL)
    with _endpoint(venv, folder) as server:
        numbers = itertools.count()

        def talks() -> list[Any]:
            # Never the same twice: an answer from the cache would be no work of the engine.
            ask = f"My knee hurts, can I come at {next(numbers)} o'clock?"
            return [[{"role": "user", "content": ask}]]

        settings = {"temperature": 2.0, "top_p": 1.0, "seed": 0, "max_tokens": 200}
        rates = [crowd(server, [talks() for _ in range(4)], settings).rate for _ in range(rounds)]
        gateway, engine = _peak(server.process), _peak(server.engine)
        rows = [
            row("edge", case, "tokens/s, 4 clients", sorted(rates)[len(rates) // 2], None, "tokens/s"),
            row("edge", case, "gateway peak RSS/target", gateway, _GATEWAY, "MiB"),
            row("edge", case, "engine peak RSS", engine, None, "MiB"),
            row("edge", case, "both/limit", gateway + engine, _MEMORY / (1 << 20), "MiB"),
        ]
        asleep = _asleep(server)
        if asleep is not None:
            rows.append(row("edge", case, "engine RSS asleep/target", asleep, _ASLEEP, "MiB"))
    return rows


@contextlib.contextmanager
def _endpoint(venv: Path, folder: Path) -> Iterator[Server]:
    key = _cloister(venv, folder, "key", "new", "--for", "bench")["key"]
    port = str(endpoints.free_port())
    serve = ("serve", endpoints.MODEL, "--ungated", "--detach", "--port", port)
    helped = subprocess.run(
        [venv / "bin" / "cloister", "serve", "--help"], capture_output=True, text=True, check=True
    )
    sleeps = "--sleep-after" in helped.stdout
    ready = _cloister(venv, folder, *serve, *(("--sleep-after", str(_IDLE)) if sleeps else ()))
    try:
        process = _gateway(folder / "home" / "jobs" / ready["job"])
        engine = endpoints.native_engine(process)
        if engine is None:
            raise SystemExit("the endpoint has no llama-server")
        yield Server(port=int(port), key=key, process=process, engine=engine)
    finally:
        _cloister(venv, folder, "job", "stop", ready["job"])


def _cloister(venv: Path, folder: Path, *words: str) -> dict[str, Any]:
    """One command of the new installation, within the limits; its JSON."""
    argv = [str(venv / "bin" / "cloister"), *words, "--json", "--home", str(folder / "home")]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CLOISTER"))}
    done = subprocess.run(argv, capture_output=True, text=True, env=clean, cwd=folder, preexec_fn=_within)
    if done.returncode:
        raise SystemExit(f"cloister {' '.join(words)}: {done.stderr}")
    return dict(json.loads(done.stdout))


def _within() -> None:
    """In the child: one core, and 1 GB of address space for each process."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _gateway(folder: Path) -> psutil.Process:
    for process in psutil.process_iter(["cmdline"]):
        if str(folder) in (process.info["cmdline"] or []):
            return process
    raise SystemExit("the job is not running")


def _peak(process: psutil.Process) -> float:
    """The most memory that a process had in use, in MiB."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def _asleep(server: Server) -> float | None:
    """MiB of the engine once it has let go of the model; None where it does not."""
    awake, limit = server.engine.memory_info().rss, time.monotonic() + _WAIT
    while time.monotonic() < limit:
        time.sleep(0.5)
        try:
            now = server.engine.memory_info().rss
        except psutil.NoSuchProcess:
            return 0.0
        if now < awake * 0.9:
            time.sleep(1)
            return server.engine.memory_info().rss / (1 << 20) if server.engine.is_running() else 0.0
    return None
