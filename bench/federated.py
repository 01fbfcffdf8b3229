"""Federated rounds with real processes on this machine: overhead beside training, and bytes on the wire.

Three sites and a coordinator, each with a home of its own, enrolled and started as people do it: jobs in
their jails, SuperLink, gateway, SuperNodes, sidecars. The shipped base with adapters of rank 16 on all its
layers, private by patient, updates as int8. `overhead` is a round, from its opening to the opening of the
next, less what the slowest site computes: the private steps, and the loss of the round's adapter on its own
records. The rows below say where it goes, each for the site that took longest, so they can add up to more.
All processes share this machine's cores with the training, which takes one thread a site. `wire` counts
every byte between a site's sidecar and the gateway: TLS, looks for messages and heartbeats too; `update` and
`request` are what a round carries up and down. The peer of bytes is the adapter in float32.
"""

from __future__ import annotations

import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.table import row, show

_SITES, _ROUNDS, _PATIENTS, _OVERHEAD, _BYTES = 3, 8, 300, 3.0, 0.27
_LORA = {
    "rank": 16, "alpha": 32, "layers": 0, "seed": 0,
    "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}  # fmt: skip
_TRAINING = {
    "epsilon": 8.0, "delta": 1e-4, "unit": "patient", "steps": 1, "sample_rate": 0.05, "learning_rate": 0.01,
    "max_grad_norm": 0.2,
}  # fmt: skip
_PATIENCE = 300.0
_PARTS = ("request to the site", "checks, packing, signing, disk", "update to the coordinator, gate")


@dataclass
class Wire:
    """Passes on what comes to `port` and notes when how many bytes went which way."""

    target: int
    port: int
    seen: list[tuple[float, str, int]] = field(default_factory=list)

    def between(self, first: float, last: float, way: str) -> int:
        """Bytes of one way in that time."""
        return sum(size for at, gone, size in self.seen if first <= at <= last and gone == way)

    def serve(self, door: socket.socket) -> None:
        """Take calls until the door is closed."""
        while True:
            try:
                caller, _ = door.accept()
            except OSError:
                return
            try:
                called = socket.create_connection(("127.0.0.1", self.target), timeout=10)
            except OSError:  # the gateway is not up yet
                caller.close()
                continue
            called.settimeout(None)
            for ends in ((caller, called, "up"), (called, caller, "down")):
                threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, read: socket.socket, write: socket.socket, way: str) -> None:
        try:
            while content := read.recv(1 << 16):
                self.seen.append((time.time(), way, len(content)))
                write.sendall(content)
        except OSError:
            pass
        for end in (read, write):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


@dataclass
class Side:
    """A home in the federation and the job that runs there."""

    session: Any
    job: str = ""

    def told(self, what: str, **fields: Any) -> list[dict[str, Any]]:
        """What the job said of this kind."""
        from appliance.ops import jobs

        return [
            {**event, "at": datetime.fromisoformat(event["at"]).timestamp()}
            for event in jobs.view(self.session.home, self.job).events
            if event["event"] == "federation"
            and event["what"] == what
            and all(event.get(key) == value for key, value in fields.items())
        ]


def run(options: Any) -> None:
    """Enrol, run all rounds, and print where the time went."""
    os.environ["OMP_NUM_THREADS"] = (
        "1"  # of the jobs: waiting threads of three sites would take each other's cores
    )
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as folder, _wire() as wire:
        hub, sites = enrolled(Path(folder), wire, options.rounds or _ROUNDS)
        _played(hub, sites, wire)
        values, bodies = _sizes(hub), _bodies(sites)
        show([*_times(hub, sites), *_bytes(hub, wire, values, bodies)], options.json)


def enrolled(folder: Path, wire: Wire, rounds: int) -> tuple[Side, list[Side]]:
    """A coordinator and its sites, who have joined."""
    from federated import papers
    from tui import session_federate
    from tui.session import Session
    from tui.site_key import make_site_key

    sides = [Side(session=Session(folder / name)) for name in ("hub", *(f"site-{n}" for n in _numbers()))]
    for number, side in enumerate(sides):
        make_site_key(side.session.home, "bench", side.session.home.path.name, "site")
        side.session.demo_base()
        spec = {"demo": True, "name": "inbox", "patients": _PATIENTS, "seed": number}
        _ended(side.session, side.session.start_import(spec))
    hub, *sites = sides
    draft = {
        "name": "bench",
        "gateway": f"127.0.0.1:{wire.port}",
        "base": "demo-base",
        "task": session_federate.task_of(hub.session, "inbox")["task"],
        "lora": _LORA,
        "training": _TRAINING,
        "rounds": {
            "count": rounds, "quorum": _SITES, "min_cohort": _SITES, "deadline_minutes": 5.0,
            "clip_bound": 1.0,
        },
    }  # fmt: skip
    words = session_federate.init(hub.session, draft, authority_to=None, passphrase="")["words"]
    for side in sites:
        name = side.session.home.path.name
        request, kit = folder / f"{name}.request", folder / f"{name}.kit"
        session_federate.request(
            side.session, "bench", site=name, dataset="inbox", units=None, again=False, to=request
        )
        read = papers.request_words(request.read_bytes())
        session_federate.approve(
            hub.session, request, words=read, to=kit, authority=None, passphrase=lambda: ""
        )
        done = session_federate.join(side.session, kit, words=words, base="", policy={})
        if not done["joined"]:
            raise SystemExit(f"{name} could not join: {done['checks']}")
    return hub, sites


def _played(hub: Side, sites: list[Side], wire: Wire) -> None:
    """All rounds."""
    from appliance.core.errors import ConfigWrong
    from appliance.ops import jobs
    from tui import session_federate

    hub.job = session_federate.start(
        hub.session, "bench", host="127.0.0.1", port=wire.target, model="together"
    )
    limit = time.monotonic() + _PATIENCE
    try:
        for side in sites:
            while not side.job:
                try:
                    side.job = session_federate.start(side.session, "bench", host="", port=None, model=None)
                except ConfigWrong:  # the gateway is not up yet
                    if time.monotonic() > limit:
                        raise
                    time.sleep(0.5)
        _ended(hub.session, hub.job)
    finally:
        for side in (hub, *sites):
            if side.job and jobs.view(side.session.home, side.job).state in ("waiting", "running"):
                jobs.stop(side.session.home, side.job, who="bench")


def _ended(session: Any, job_id: str) -> None:
    from appliance.ops import jobs

    job = jobs.wait(session.home, job_id, _PATIENCE)
    if job.state != "done":
        raise SystemExit(f"job {job_id} of {session.home.path.name} is {job.state}: {job.end}")


def _times(hub: Side, sites: list[Side]) -> list[dict[str, Any]]:
    """Medians over the rounds but the first, whose adapter travels whole, and the last."""
    opened = {event["round"]: event["at"] for event in hub.told("round", state="open")}
    done = {event["round"]: event["at"] for event in hub.told("round", state="done")}
    taken: dict[str, list[float]] = {}
    for number in sorted(done)[1:-1]:
        ways = [_way(hub, side, number) for side in sites]
        whole = opened[number + 1] - opened[number]
        training, loss = (max(way[name] for way in ways) for name in ("training", "loss"))
        parts = {
            "a round": whole,
            "private steps at the slowest site": training,
            "loss of the adapter at the slowest": loss,
            "overhead": whole - max(way["training"] + way["loss"] for way in ways),
            **{f"  {name}": max(way[name] for way in ways) for name in _PARTS},
            "  mean, record, next opening": opened[number + 1] - max(way["at"] for way in ways),
        }
        for name, seconds in parts.items():
            taken.setdefault(name, []).append(seconds)
    targets = {"overhead": _OVERHEAD}
    return [
        row("federated", f"{_SITES} sites", name + ("/target" if name in targets else ""), middle,
            targets.get(name), "s", _spread(found))
        for name, found in taken.items()
        for middle in (statistics.median(found),)
    ]  # fmt: skip


def _way(hub: Side, side: Side, number: int) -> dict[str, float]:
    """What became of a round at one site: seconds of each part, and when its update was in."""
    name = side.session.home.path.name
    (opened,) = (event["at"] for event in hub.told("round", state="open", round=number))
    (trained,) = side.told("trained", round=number)
    (sent,) = (event["at"] for event in side.told("round", round=number))
    asked = max(event["at"] for event in side.told("asked") if event["at"] <= trained["at"])
    loss = max(side.told("judged"), key=lambda event: (event["at"] <= trained["at"], event["at"]))["seconds"]
    (taken,) = (event["at"] for event in hub.told("update", round=number, site=name))
    found = (
        asked - opened,
        sent - asked - trained["seconds"] - loss,
        taken - sent,
    )
    return {
        "training": trained["seconds"],
        "loss": loss,
        "at": taken,
        **dict(zip(_PARTS, found, strict=True)),
    }


def _spread(found: list[float]) -> float | None:
    if len(found) < 2:
        return None
    low, _, high = statistics.quantiles(found, n=4, method="inclusive")
    return (high - low) / 2


def _sizes(hub: Side) -> int:
    """Bytes of the adapter in float32: of the four vectors of a round's state the first."""
    from federated import checkpoint
    from federated.place import held

    folder = checkpoint.folder_of(held(hub.session.home, "bench").path, 1)
    return (folder / "state").stat().st_size // 4


def _bodies(sites: list[Side]) -> Mapping[str, float]:
    """Median bytes that a round carries for a site, each way."""
    up = [event["bytes"] for side in sites for event in side.told("round")]
    down = [event["bytes"] for side in sites for event in side.told("asked")[1:]]
    return {"up": statistics.median(up), "down": statistics.median(down)}


def _bytes(hub: Side, wire: Wire, whole: int, bodies: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    opened = [event["at"] for event in hub.told("round", state="open")]
    case, rounds = f"{_SITES} sites, adapter {whole / 1024:.0f} KiB", len(opened) - 2
    for way, name in (("up", "update"), ("down", "request")):
        yield row("federated", case, f"{name}, a site and round/fp32", bodies[way], whole, "B")
        seen = wire.between(opened[1], opened[-1], way) / rounds / _SITES
        yield row("federated", case, f"wire {way}, a site and round/fp32", seen, whole, "B")
    yield row("federated", case, "larger of the two/target", max(bodies.values()) / whole, _BYTES, "fp32")


@contextmanager
def _wire() -> Iterator[Wire]:
    from federated.flower.children import free_port

    with socket.create_server(("127.0.0.1", 0)) as door:
        made = Wire(target=free_port(), port=door.getsockname()[1])
        thread = threading.Thread(target=made.serve, args=(door,), daemon=True)
        thread.start()
        yield made
        door.shutdown(socket.SHUT_RDWR)


def _numbers() -> range:
    return range(1, _SITES + 1)
