"""The audit log: verifying a million entries, and what the tree adds to the cost of an entry.

The log is verified in a process of its own, whose peak memory is the kernel's (VmHWM) less what it had
when everything was imported. Appends are commits of one entry each, beside an insert of the same row into
a table without a tree, in turns on one connection and disk.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from appliance.core.db import connect, transaction
from appliance.core.home import Home, open_home
from appliance.security import audit
from appliance.security.log import merkle
from bench.table import row, show

_SECONDS, _MEMORY = 10.0, 64.0  # targets: seconds for a million entries, MiB
_ENTRIES, _APPENDS = 1_000_000, 400

_VERIFY = """
import json, sys, time
from pathlib import Path
from appliance.core.home import open_home
from appliance.security.log.verify import verify
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
home, before = open_home(Path(sys.argv[1])), peak()
wall, cpu = time.perf_counter(), time.process_time()
found = verify(home, [])
print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu,
                  "memory": peak() - before, "peak": peak(), "ok": found.ok, "size": found.size}))
"""


def run(options: Any) -> None:
    """Fill, verify, append and print."""
    entries = options.records or _ENTRIES
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as place:
        home = open_home(Path(place))
        rows = [*_appends(home), *_filled(home, entries), *_verified(home, entries)]
        show(rows, options.json)


def _appends(home: Home) -> list[dict[str, Any]]:
    facts = {"who": "mira", "what": "bench", "target": "clinic-1b-lora-0007"}
    with transaction(home) as link:
        link.execute("CREATE TABLE plain (seq INTEGER PRIMARY KEY AUTOINCREMENT, entry TEXT, leaf TEXT)")
    taken: dict[str, list[float]] = {"ours": [], "plain": []}
    cpu: dict[str, list[float]] = {"ours": [], "plain": []}
    with closing(connect(home)) as link:
        for number in range(2 * _APPENDS):
            name = ("ours", "plain")[(number ^ number >> 1) & 1]
            began, busy = time.perf_counter(), time.process_time()
            link.execute("BEGIN IMMEDIATE")
            if name == "ours":
                audit.record(link, **facts)
            else:
                entry = json.dumps({"at": time.time(), **facts}, sort_keys=True, separators=(",", ":"))
                leaf = merkle.leaf_hash(entry.encode()).hex()
                link.execute("INSERT INTO plain (entry, leaf) VALUES (?, ?)", (entry, leaf))
            link.execute("COMMIT")
            taken[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - busy)
    return [
        row("auditlog", "append", f"{what}/plain insert", *_medians(found), "ms")
        for what, found in (("p50 with commit", taken), ("p50 CPU", cpu))
    ]


def _medians(found: dict[str, list[float]]) -> tuple[float, float]:
    return statistics.median(found["ours"]) * 1e3, statistics.median(found["plain"]) * 1e3


def _filled(home: Home, entries: int) -> list[dict[str, Any]]:
    began = time.process_time()
    done = 0
    while done < entries:
        with transaction(home) as link:
            for number in range(done, min(done + 50_000, entries)):
                audit.record(link, who="mira", what="bench", target=f"row-{number}", step=number)
                done += 1
    each = (time.process_time() - began) / entries * 1e6
    return [row("auditlog", f"{entries} entries", "CPU of one append, no commit", each, None, "us")]


def _verified(home: Home, entries: int) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", _VERIFY, str(home.path)], check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    if not found["ok"] or found["size"] < entries:
        raise SystemExit("the log did not verify")
    case = f"{entries} entries"
    target = _SECONDS * entries / _ENTRIES
    return [
        row("auditlog", case, "verify, wall/target", found["wall"], target, "s"),
        row("auditlog", case, "verify, CPU/target", found["cpu"], target, "s"),
        row("auditlog", case, "verify, memory taken/target", found["memory"], _MEMORY, "MiB"),
        row("auditlog", case, "verify, peak of the process", found["peak"], None, "MiB"),
    ]
