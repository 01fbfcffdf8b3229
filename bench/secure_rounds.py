"""Rounds by secure aggregation beside plain rounds: real processes, three sites and a coordinator.

Each has a home of its own, enrolled and started as people do it: jobs in their jails, SuperLink, gateway,
SuperNodes, sidecars. The shipped base, five private steps a round with the settings that `federate init`
takes, one thread a site; all share this machine's cores. Federations of the two kinds take turns, so that a
busy machine slows both alike. A round is the time from its opening to that of the next; the first of a
federation (one message more, whole adapters) and the last are not counted. `update` is what a site sends.
The last row holds each secure round against the plain mean of what its sites learnt, which is read from
their homes while the round runs: the largest difference of a value, beside a step of the integers.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.table import row, show

_SITES, _ROUNDS, _TURNS, _PATIENTS, _MOST = 3, 5, 3, 400, 1.5
_KINDS = ("plain", "secure")
_LORA = {"rank": 4, "alpha": 8, "layers": 0, "seed": 0, "targets": ["v_proj", "o_proj", "down_proj"]}
_TRAINING = {
    "epsilon": 8.0, "delta": 1e-4, "unit": "patient", "steps": 5, "sample_rate": 0.35, "learning_rate": 0.01,
    "max_grad_norm": 0.2,
}  # fmt: skip
_PATIENCE = 600.0


@dataclass
class Found:
    """What rounds of one kind took. `off` is how far sums were from the plain mean, in steps of `step`."""

    seconds: list[float] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    off: list[float] = field(default_factory=list)
    step: float = 0.0


def run(options: Any) -> None:
    """Both kinds in turns, in homes that are made once."""
    os.environ["OMP_NUM_THREADS"] = "1"
    found = {kind: Found() for kind in _KINDS}
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as folder:
        homes = _homes(Path(folder))
        for turn in range(_TURNS):
            for kind in _KINDS if turn % 2 == 0 else _KINDS[::-1]:
                _play(homes, kind, turn, options.rounds or _ROUNDS, found[kind])
    plain, secure = found["plain"], found["secure"]
    case, medians = (
        f"{_SITES} sites, real processes",
        [statistics.median(one.seconds) for one in (secure, plain)],
    )
    low, _, high = statistics.quantiles(secure.seconds, n=4, method="inclusive")
    sizes = (statistics.median(secure.sizes), statistics.median(plain.sizes))
    rows = [
        row("secure", case, "round: secure/plain", *medians, "s", (high - low) / 2 / medians[1]),
        row("secure", case, "update: secure/plain", *sizes, "B"),
        row("secure", case, "sum - plain sum/lattice step", max(secure.off) * secure.step, secure.step, ""),
    ]
    show(rows, options.json)
    if medians[0] > _MOST * medians[1]:
        raise SystemExit(f"a secure round takes more than {_MOST} times a plain one")
    if max(secure.off) > 1:
        raise SystemExit("a secure sum is not the plain sum to a step of its integers")


def _homes(folder: Path) -> list[Any]:
    """The sessions of a coordinator and its sites, with keys, base and records."""
    from tui.session import Session
    from tui.site_key import make_site_key

    made = [Session(folder / name) for name in ("hub", *(f"site-{n}" for n in range(1, _SITES + 1)))]
    for session in made:
        make_site_key(session.home, "bench", session.home.path.name, "site")
        session.demo_base()
    return made


def _play(homes: list[Any], kind: str, turn: int, rounds: int, found: Found) -> None:
    """A federation from its agreement to its adapter."""
    from appliance.core.errors import ConfigWrong
    from appliance.ops import jobs
    from tui import session_federate

    hub, *sites = homes
    name = f"{kind}-{turn}"
    _enrolled(hub, sites, name, rounds, secure=kind == "secure")
    started = [(hub, session_federate.start(hub, name, host="127.0.0.1", port=None, model=f"{name}-adapter"))]
    limit = time.monotonic() + _PATIENCE
    with _watched(sites, name) as learnt:
        try:
            for site in sites:
                while len(started) < 2 + sites.index(site):
                    try:
                        job = session_federate.start(site, name, host="", port=None, model=None)
                        started.append((site, job))
                    except ConfigWrong:  # the gateway is not up yet
                        if time.monotonic() > limit:
                            raise
                        time.sleep(0.5)
            _ended(hub, started[0][1])
        finally:
            for session, job in started:
                if jobs.view(session.home, job).state in ("waiting", "running"):
                    jobs.stop(session.home, job, who="bench")
    told = [one for one in jobs.view(hub.home, started[0][1]).events if one["event"] == "federation"]
    opened = [
        datetime.fromisoformat(one["at"]).timestamp()
        for one in told
        if one["what"] == "round" and one["state"] == "open"
    ]
    found.seconds += [last - first for first, last in pairwise(opened[1:])]
    found.sizes += [float(one["bytes"]) for one in told if one["what"] == "update"]
    if kind == "secure":
        _compare(hub, name, learnt, found)


@contextmanager
def _watched(sites: list[Any], name: str) -> Iterator[dict[tuple[str, int], Any]]:
    """What each site learnt in each secure round, read as soon as it is written; it is gone once opened."""
    from federated.place import place_of
    from federated.secure import stored

    learnt: dict[tuple[str, int], Any] = {}
    over = threading.Event()

    def look() -> None:
        seen: dict[str, int] = {}
        while not over.wait(0.03):
            for session in sites:
                site, home = session.home.path.name, place_of(session.home, name).seat
                try:
                    written = (home / "secure" / "vector").stat().st_mtime_ns
                    one = stored.vector(home) if seen.get(site) != written else None
                except FileNotFoundError:
                    continue
                if one is not None:
                    seen[site], learnt[site, one.round] = written, one

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield learnt
    finally:
        over.set()
        thread.join()


def _compare(hub: Any, name: str, learnt: dict[tuple[str, int], Any], found: Found) -> None:
    """Each committed sum beside the plain weighted mean of the changes, each clipped to the bound."""
    import numpy as np

    from federated import checkpoint, standing
    from federated.packing import norm
    from federated.place import held
    from federated.secure import pinned

    place = held(hub.home, name)
    federation = standing.agreed(place)
    vectors = {}
    for number in range(1, federation.rounds.count + 1):
        content = (checkpoint.folder_of(place.path, number) / "state").read_bytes()
        adapter, left, _, _ = np.frombuffer(content, "<f4").reshape(4, -1).astype(np.float64)
        vectors[number] = adapter + left  # with what packing held back, the adapter has moved by the mean
    for number in range(2, federation.rounds.count + 1):
        record = checkpoint.read_record(place.path, number, federation.coordinator_key)
        said = {site: learnt.get((site, number)) for site in (record.weights if record else {})}
        if record is None or len(said) != _SITES or any(one is None for one in said.values()):
            raise SystemExit(f"round {number} of {name} was not seen whole")
        bound = federation.rounds.clip_bound
        changes = [one.change * min(1.0, bound / norm(one.change)) for one in said.values()]
        weights = [pinned.weight_of(federation, one.units) for one in said.values()]
        mean = np.average(changes, axis=0, weights=weights)
        found.step = 1 / pinned.lattice_of(federation, mean.size).scale
        found.off.append(float(np.abs(vectors[number] - vectors[number - 1] - mean).max() / found.step))


def _enrolled(hub: Any, sites: list[Any], name: str, rounds: int, *, secure: bool) -> None:
    """Records with a budget of their own at each site, an agreement, and all sites in it."""
    from federated import papers
    from federated.flower.children import free_port
    from tui import session_federate

    for number, session in enumerate((hub, *sites)):
        spec = {"demo": True, "name": name, "patients": _PATIENTS, "seed": number}
        _ended(session, session.start_import(spec))
    agreed = {
        "count": rounds, "quorum": _SITES, "min_cohort": _SITES, "deadline_minutes": 10.0, "clip_bound": 1.0,
        "secure": secure,
    }  # fmt: skip
    draft = {
        "name": name,
        "gateway": f"127.0.0.1:{free_port()}",
        "base": "demo-base",
        "task": session_federate.task_of(hub, name)["task"],
        "lora": _LORA,
        "training": _TRAINING,
        "rounds": agreed,
    }
    words = session_federate.init(hub, draft, authority_to=None, passphrase="")["words"]
    for session in sites:
        site = session.home.path.name
        request, kit = (session.home.path.parent / f"{name}-{site}.{part}" for part in ("request", "kit"))
        session_federate.request(session, name, site=site, dataset=name, units=None, again=False, to=request)
        read = papers.request_words(request.read_bytes())
        session_federate.approve(hub, request, words=read, to=kit, authority=None, passphrase=lambda: "")
        done = session_federate.join(session, kit, words=words, base="", policy={})
        if not done["joined"]:
            raise SystemExit(f"{site} could not join: {done['checks']}")


def _ended(session: Any, job_id: str) -> None:
    from appliance.ops import jobs

    job = jobs.wait(session.home, job_id, _PATIENCE)
    if job.state != "done":
        raise SystemExit(f"job {job_id} of {session.home.path.name} is {job.state}: {job.end}")
