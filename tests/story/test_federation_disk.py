"""The disk of one hospital is full between two rounds: real commands, real processes, a real small disk."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from federation import SITES, enrolled, started, state, until

pytestmark = pytest.mark.soak

_OPTIONS = (
    *("--rounds", "500", "--quorum", "2", "--min-cohort", "2", "--deadline", "1"),
    *("--steps", "1", "--sample-rate", "0.06", "--delta", "1e-4"),
)


def fill(disk: Path) -> None:
    """Write until nothing more fits."""
    with (disk / "filler").open("wb", buffering=0) as filler:
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while filler.write(bytes(size)) == size:
                    pass


def test_a_site_whose_disk_is_full_says_so_and_comes_back_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    disk = tmp_path / "south"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "none", disk], check=False).returncode:
        pytest.skip("no disk can be mounted here")
    hub, sites = enrolled(tmp_path, *_OPTIONS, joining=("--min-cohort", "2"))
    try:
        started(hub, sites)
        south = sites["south"]

        def rounds() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = hub.cloister("federate", "status", "valley")["rounds"]
            return found

        everybody = set(SITES)
        until(lambda: set(rounds()[-1]["sites"]) == everybody, "a round of all")
        fill(disk)
        full = {"code": "disk", "why": "the disk of the site is full"}
        until(lambda: rounds()[-1]["refused"].get("south") == full, "the cause at the coordinator")
        before = rounds()[-1]["round"]
        until(lambda: rounds()[-1]["round"] > before + 2, "the others go on")
        assert set(rounds()[-1]["sites"]) == everybody - {"south"}
        said = south.cloister("federate", "status", "valley")
        assert said["answers"][-1]["answer"] == full["code"]
        assert said["job"]["state"] == "running"
        paid = said["epsilon"]["steps_here"]

        (disk / "filler").unlink()
        until(lambda: set(rounds()[-1]["sites"]) == everybody, "it is back, and nobody did a thing")
        hub.cloister("federate", "end", "valley", "--unfinished")
        for name in SITES:
            until(lambda name=name: state(sites[name])["job"]["state"] == "done", f"{name} did not end")
        sent = sum("south" in one["sites"] for one in rounds())
        assert state(south)["epsilon"]["steps_here"] >= max(sent, paid + 1)
    finally:
        for home in (hub, *sites.values()):
            home.end()
        subprocess.run(["umount", "--lazy", disk], check=True)
