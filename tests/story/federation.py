"""A federation as its people type it: a coordinator and three sites, each with a home and processes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_COMMAND = Path(sys.executable).parent / "cloister"
SITES = ("north", "south", "west")


@dataclass(frozen=True)
class Hospital:
    """A home, used by commands alone."""

    home: Path

    def cloister(self, *words: str, code: int | None = 0) -> dict[str, Any]:
        """What a command says; `code` is how it must end (None: in any way)."""
        done = subprocess.run(
            [_COMMAND, *words, "--json", "--home", str(self.home)],
            capture_output=True,
            text=True,
            check=False,
        )
        lines = done.stdout.splitlines()
        assert len(lines) == 1, (words, done.stdout, done.stderr)
        assert code in (None, done.returncode), (words, done.stdout, done.stderr)
        found: dict[str, Any] = json.loads(lines[0])
        return found

    @contextmanager
    def following(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that stays until its job ends, and is ended with the test."""
        with subprocess.Popen(
            [_COMMAND, *words, "--json", "--home", str(self.home)], stdout=subprocess.DEVNULL
        ) as process:
            try:
                yield process
            finally:
                process.terminate()

    def told(self, job: str, what: str, **fields: Any) -> list[dict[str, Any]]:
        """What a job of the federation has said of this kind."""
        path = self.home / "jobs" / job / "events.jsonl"
        events = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [
            event
            for event in events
            if event.get("what") == what and all(event.get(key) == value for key, value in fields.items())
        ]

    def kill(self, job: str) -> None:
        """kill -9 of a job's process and of nothing else."""
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "appliance.ops.worker" in words and str(self.home / "jobs" / job) in words:
                process.kill()
                process.wait(60)
                return
        raise AssertionError(f"job {job} does not run")

    def end(self) -> None:
        """End whatever works here."""
        for process in psutil.process_iter(["cmdline"]):
            if any(word.startswith(str(self.home)) for word in process.info["cmdline"] or []):
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def state(who: Hospital) -> dict[str, Any]:
    """What a home says of the federation."""
    return who.cloister("federate", "status", "valley")


def until(true: Callable[[], object], what: str, seconds: float = 150.0) -> None:
    """Wait for something."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, what
        time.sleep(0.1)


def prepared(folder: Path, number: int, name: str, patients: int = 250) -> Hospital:
    """A home with keys, the shipped base and the made-up records of its own patients."""
    from appliance.data import inbox

    made, source = Hospital(folder / name), folder / f"{name}.csv"
    with source.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["patient_id", "message", "queue"])
        for record in inbox.generate(40 + number, patients=patients):
            table.writerow([f"{name}-{record.unit}", record.text, record.answer])
    made.cloister("trust", "init", name)
    made.cloister("model", "import", "demo")
    columns = ("--text", "message", "--label", "queue", "--unit", "patient_id")
    made.cloister(
        "data", "import", str(source), "--name", "inbox", *columns, "--labels", ",".join(inbox.LABELS)
    )
    return made


def enrolled(
    folder: Path, *options: str, joining: tuple[str, ...] = ()
) -> tuple[Hospital, dict[str, Hospital]]:
    """A coordinator and three sites that have joined `valley`."""
    from federated.flower.children import free_port

    names = ("hub", *SITES)
    with ThreadPoolExecutor(2) as several:
        hub, *sites = several.map(lambda one: prepared(folder, *one), enumerate(names))
    gateway = f"127.0.0.1:{free_port()}"
    init = hub.cloister("federate", "init", "valley", "--dataset", "inbox", "--gateway", gateway, *options)
    members = dict(zip(SITES, sites, strict=True))

    def file(name: str, kind: str) -> str:
        return str(folder / f"{name}.{kind}")

    def request(name: str) -> str:
        words = ("federate", "request", "valley", "--dataset", "inbox", "--to", file(name, "request"))
        return str(members[name].cloister(*words)["words"])

    def join(name: str) -> None:
        members[name].cloister("federate", "join", file(name, "kit"), "--words", init["words"], *joining)

    with ThreadPoolExecutor(2) as several:
        asked = several.map(request, SITES)
        for name, words in zip(SITES, asked, strict=True):
            given = ("--words", words, "--to", file(name, "kit"))
            hub.cloister("federate", "approve", file(name, "request"), *given)
        list(several.map(join, SITES))
    return hub, members


def started(hub: Hospital, sites: dict[str, Hospital]) -> tuple[str, dict[str, str]]:
    """The jobs of all; a site starts when its preflight finds the gateway."""
    words = ("--detach", "--host", "127.0.0.1", "--model", "together")
    run = str(hub.cloister("federate", "start", "valley", *words)["job"])
    until(lambda: hub.told(run, "ready"), "the gateway did not come up")
    with ThreadPoolExecutor(2) as several:
        begun = several.map(
            lambda site: site.cloister("federate", "start", "valley", "--detach"), sites.values()
        )
        return run, {name: str(one["job"]) for name, one in zip(sites, begun, strict=True)}
