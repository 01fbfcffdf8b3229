"""Bundles: export and verify, MB/s, beside the SHA-256 rate of one core in the same run; peak memory.

"write" is what happens once people have approved: hashes are known, and checked again on the way. "hash
+ write" counts the pass before that, too. Files lie in the page cache; --records: MB of the file
(default 512). By CPU seconds of all threads, as the machine's other work and its disk count neither way,
and by the clock.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.table import against, in_turns, row, show

_KEM = "mlkem768-x25519"


def run(options: Any) -> None:
    """Time hashing, export and verify in turns, then measure the memory of a child that does both."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = _speed(folder, options.records or 512, options.rounds or 7)
        rows.append(_memory(folder, options.records or 512))
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
    digest = writing.file_source(file, "model.gguf", "").entry.sha256

    def hashed() -> None:
        one = hashlib.sha256()
        for _ in range(megabytes):
            one.update(piece)

    def write(known: str | None) -> None:
        writing.write(
            out,
            [writing.file_source(file, "model.gguf", "", sha256=known)],
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
        "write": lambda: write(digest),
        "hash + write": lambda: write(None),
        "verify": lambda: reading.verify(out, edge, trust),
    }
    write(digest)
    rows = []
    for clock, unit in ((time.process_time, "MB/CPU s"), (time.perf_counter, "MB/s")):
        taken = in_turns(works, rounds, clock)
        rates = {name: [megabytes / seconds for seconds in found] for name, found in taken.items()}
        case = f"{megabytes} MB, hybrid"
        rows += [
            against("bundles", case, rates, name, "SHA-256", unit)
            for name in ("write", "hash + write", "verify")
        ]
    return rows


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
