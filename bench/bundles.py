"""Bundles: export and verify, MB/s, beside the SHA-256 rate of one core in the same run; peak memory.

"write" is what happens once people have approved: hashes are known, and checked again on the way.
"sealed write" reads a sealed home, "hash + write" counts the pass before that, too. A turn of each, in
changing order, is timed by the clock and in CPU seconds of all threads at once; the ratio is of medians.
The clock counts the fsync, and with it the disk. Each file is new; what is read lies in the page cache.
--records: MB of the file (default 512). Say with the figures how busy the machine was, and TMPDIR's disk.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from bench.table import against, row, show

_KEM = "mlkem768-x25519"
_CLOCKS = {"MB/s": time.perf_counter, "MB/CPU s": time.process_time}


def run(options: Any) -> None:
    """Time hashing, export and verify in turns, then measure the memory of a child that does both."""
    with tempfile.TemporaryDirectory() as place:
        folder, megabytes = Path(place), options.records or 512
        rows = [_load("before")]
        rows += _speed(folder, megabytes, options.rounds or 7)
        rows += [_load("after"), _memory(folder, megabytes)]
    show(rows, options.json)


def _speed(folder: Path, megabytes: int, rounds: int) -> list[dict[str, Any]]:
    from appliance.security.bundle import reading, writing
    from appliance.security.bundle.manifest import Facts
    from appliance.security.trust.identity import new_identity, public
    from appliance.security.trust.trust import trust_of_cards

    centre, edge = new_identity("centre", "release"), new_identity("edge", "edge")
    now = int(time.time())
    trust = trust_of_cards([public(centre)], now=now)
    file, out = folder / "model.gguf", folder / "x.clb"
    piece = os.urandom(1 << 20)
    with file.open("wb") as stream:
        for _ in range(megabytes):
            stream.write(piece)
        os.fsync(stream.fileno())
    sealed = _sealed(folder / "home", file)
    digest = writing.file_source(file, "model.gguf", "").entry.sha256

    def hashed() -> None:
        one = hashlib.sha256()
        for _ in range(megabytes):
            one.update(piece)

    def write(path: Path, known: str | None) -> None:
        writing.write(
            out,
            [writing.file_source(path, "model.gguf", "", sha256=known)],
            Facts(kind="model", name="bench"),
            identity=centre,
            receivers=[edge.receiver],
            suite=writing.default_suite(_KEM),
            line="model",
            seq=1,
            created=now,
            expires=now + 86_400,
        )

    works = {
        "SHA-256": hashed,
        "write": lambda: write(file, digest),
        "sealed write": lambda: write(sealed, digest),
        "hash + write": lambda: write(file, None),
        "verify": lambda: reading.verify(out, edge, trust),
    }
    taken = _turns(works, rounds, lambda name: out.unlink(missing_ok=True) if "write" in name else None)
    sealed.unlink()
    case = f"{megabytes} MB, hybrid, {_medium(folder)}"
    rows = []
    for unit, found in taken.items():
        rates = {name: [megabytes / seconds for seconds in each] for name, each in found.items()}
        rows += [
            against("bundles", case, rates, name, "SHA-256", unit) for name in works if name != "SHA-256"
        ]
    return rows


def _turns(
    works: Mapping[str, Callable[[], object]], rounds: int, before: Callable[[str], object]
) -> dict[str, dict[str, list[float]]]:
    """Seconds of each work, by each clock; one turn of each goes before, unmeasured, as does `before`."""
    taken: dict[str, dict[str, list[float]]] = {unit: {name: [] for name in works} for unit in _CLOCKS}
    order, shuffle = list(works), random.Random(0)
    for turn in range(rounds + 1):
        for name in order:
            before(name)
            began = {unit: clock() for unit, clock in _CLOCKS.items()}
            works[name]()
            for unit, clock in _CLOCKS.items():
                if turn:
                    taken[unit][name].append(clock() - began[unit])
        shuffle.shuffle(order)
    return taken


def _sealed(root: Path, file: Path) -> Path:
    """The same file in a home with a vault, which this process has unlocked."""
    from appliance.core import sealing
    from appliance.core.home import open_home
    from appliance.security.vault import box, slots
    from appliance.security.vault.keys import store_keys
    from appliance.security.vault.mounted import Vault

    home = open_home(root)
    master = slots.create(home, "bench", "four words for benches")
    held, _ = box.read(root)
    sealing.mount(root, Vault(root, store_keys(master, vault=held.vault, epoch=held.epoch, whole=held.whole)))
    path = home.models / file.name
    with file.open("rb", buffering=0) as stream:
        sealing.Place(root=root, path=path).seal(cast(BinaryIO, stream))
    return path


def _medium(folder: Path) -> str:
    """The file system below `folder`: "tmpfs" is memory."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    at = [(len(point), kind) for point, kind in mounts if folder.is_relative_to(point)]
    return max(at)[1]


def _load(when: str) -> dict[str, Any]:
    """Tasks that ran or waited in the minute before; this benchmark itself is about one."""
    return row(
        "bundles", f"{os.cpu_count()} cores", f"load average {when}", os.getloadavg()[0], None, "tasks"
    )


def _memory(folder: Path, megabytes: int) -> dict[str, Any]:
    """Peak resident memory of a process that imports the code, writes and verifies."""
    root = Path(__file__).resolve().parents[1]
    child = root / "tests" / "appliance" / "bundle_memory.py"
    paths = os.pathsep.join([str(root), str(child.parent)])
    done = subprocess.run(
        [sys.executable, str(child), str(folder), str(megabytes)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    return row("bundles", f"{megabytes} MB, x25519", "peak memory", float(done.stdout), None, "MiB")
