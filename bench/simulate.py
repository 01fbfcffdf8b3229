"""Simulated rounds: seconds, and the memory of the coordinator's part from 10 to 1,000 sites.

`simulate` plays 500 sites with the shipped base on two processes, one private step of about two patients a
site in the last layer: what is timed is a round from its opening to the score of its adapter, on 100 records;
`without training` sends random changes and so is what everything else costs. The engine is Flower's where Ray
is installed, and processes of our own. `coordinator` is a process of its own that opens a round, takes the
updates of so many sites from the disk, one after the other as they come, and closes it; what it holds at most
above what it held before (VmHWM, Linux), for an adapter of --records values. `ratio` is to 10 sites.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.table import row, show

_SITES, _VALUES = (10, 100, 1000), 200_000
_SPEC: dict[str, Any] = {
    "sites": 500, "rounds": 3, "split": "iid", "steps": 1, "sample_rate": 0.02, "held_out": 100, "layers": 1,
    "targets": ("v_proj",),
}  # fmt: skip


def run(options: Any) -> None:
    """Memory first, then a round on each engine that is there."""
    for rule in ("mean", "products", "trimmed-mean"):
        held = {count: _child(count, options.records or _VALUES, rule) for count in _SITES}
        show(
            [
                row(
                    "simulate",
                    f"coordinator, {count} sites",
                    f"memory of {rule}",
                    held[count],
                    held[10],
                    "MiB",
                )
                for count in _SITES
            ],
            options.json,
        )
    for engine in ("processes", *(("flower",) if find_spec("ray") else ())):
        whole, bare = (_rounds(engine, train=train, rounds=options.rounds) for train in (True, False))
        case = f"500 sites, {engine}"
        show(
            [
                row("simulate", case, "a round, with training", whole[0], None, "s"),
                row("simulate", case, "CPU of training at the sites", whole[1], None, "CPU s"),
                row("simulate", case, "a round, without training", bare[0], None, "s"),
            ],
            options.json,
        )


def _rounds(engine: str, *, train: bool, rounds: int) -> tuple[float, float]:
    """Median seconds of a round, and CPU seconds at its sites."""
    from types import SimpleNamespace

    from federated import simulate

    spec = _SPEC | {"engine": engine, "train": train} | ({"rounds": rounds} if rounds else {})
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as folder:
        job: Any = SimpleNamespace(folder=Path(folder), home=None, id="bench", who="bench", emit=_unheard)
        done = simulate.run(spec, job)
    found = done["rounds"]
    return tuple(statistics.median(one[key] for one in found) for key in ("seconds", "training_seconds"))  # type: ignore[return-value]


def _unheard(event: str, **facts: Any) -> None:
    """Nobody follows a benchmark's job."""


def _child(sites: int, values: int, rule: str) -> float:
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as folder:
        command = [sys.executable, "-m", "bench.simulate", folder, str(sites), str(values), rule]
        for what in ("send", "close"):
            done = subprocess.run([*command, what], check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout))


def coordinator(folder: Path, sites: int, values: int, rule: str, what: str) -> float:
    """Send: sign the sites' updates into `folder`. Close: a round of them; MiB held at most above the start.

    Raises:
        SystemExit: the gate refused an update.
    """
    from federated import course
    from federated.admit import Refused

    held, names = _course(folder, sites, values, rule)
    if what == "send":
        (folder / "sent").mkdir()
        state = course.begin(held, names, now=0.0)
        for name in names:
            (folder / "sent" / name).write_bytes(_update(held, state, name))
        return 0.0
    state = course.begin(held, names, now=0.0)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    for name in names:
        state, found = course.receive(held, state, (folder / "sent" / name).read_bytes())
        if isinstance(found, Refused):
            raise SystemExit(f"the gate refused {name}: {found.code}")
    course.close(held, state)
    return _status("VmHWM") - before


def _course(folder: Path, sites: int, values: int, rule: str) -> tuple[Any, list[str]]:
    import numpy as np

    from federated import description
    from federated.course import Course
    from federated.layout import layout_of
    from federated.simulate_world import Terms, drafted
    from federated.simulated import World, site_key

    wide = values // 16
    layout = layout_of({"m.lora_A.weight": (8, wide), "m.lora_B.weight": (wide, 8)})
    names = [f"site-{number:04}" for number in range(1, sites + 1)]
    world = World(
        base="", task={"kind": "label", "prompt": "{text}", "labels": ["a", "b"]}, unit="u", batch=1
    )
    made = drafted(Terms(rule=rule, rounds=1), world, dict.fromkeys(names, 100), clip_bound=1e3)
    fixed = {"created": "2026-01-01T00:00:00+00:00", "expires": "2027-01-01T00:00:00+00:00"}
    model = made.model.model_dump() | {"layout": layout.sha256()}
    made = description.Federation.model_validate_json(
        json.dumps(made.model_dump(mode="json") | fixed | {"model": model})
    )
    file = description.written(made)
    start = np.random.default_rng(0).normal(size=layout.values).astype(np.float32)
    held = Course(
        home=folder / "hub",
        federation=made,
        digest=description.digest(file),
        layout=layout,
        start=start,
        sign=site_key("hub").sign,
    )
    return held, names


def _update(held: Any, state: Any, name: str) -> bytes:
    import hashlib

    import numpy as np

    from federated.packing import pack
    from federated.simulated import site_key
    from federated.update import Statement, sealed_update

    seed = int(name.rpartition("-")[2])
    change = np.random.default_rng(seed).normal(scale=1e-2, size=held.layout.values).astype(np.float32)
    body = pack(change, "i8")
    said = Statement(
        federation=held.digest,
        round=state.number,
        site=name,
        parent=state.parent,
        packing="i8",
        units=100,
        loss=-1,
        body=hashlib.sha256(body).hexdigest(),
    )
    return sealed_update(said, body, site_key(name).sign)


def _status(key: str) -> float:
    """A line of /proc/self/status, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(key)


if __name__ == "__main__":
    print(json.dumps(coordinator(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:6])))
