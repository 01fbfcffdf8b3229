"""Readings of this machine: CPU, memory, disk, and whether there is a way out."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

_ROUTES = Path("/proc/net/route")
_ROUTES_6 = Path("/proc/net/ipv6_route")
_REJECT = 0x0200  # RTF_REJECT of the kernel's route flags
_UP = 0x0001


_GPU_FIELDS = "utilization.gpu,memory.used,memory.total,temperature.gpu"
_GPU_PATIENCE = 2.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """All GPUs of the machine taken together; `heat` is that of the hottest, in degrees Celsius."""

    busy: float
    used: float
    total: float
    heat: float


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Shares are 0 to 1, sizes in GB (1e9 bytes)."""

    cpu: float
    cores: int
    ram: float
    ram_used: float
    ram_total: float
    disk: float
    disk_left: float
    network: str


def read_machine(home: Path) -> Machine:
    """The readings now; CPU is the mean since the last call."""
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(home))
    return Machine(
        cpu=psutil.cpu_percent() / 100,
        cores=psutil.cpu_count() or 1,
        ram=memory.percent / 100,
        ram_used=(memory.total - memory.available) / 1e9,
        ram_total=memory.total / 1e9,
        disk=disk.percent / 100,
        disk_left=disk.free / 1e9,
        network=network(_read(_ROUTES), _read(_ROUTES_6)),
    )


def read_gpu() -> Gpu | None:
    """The GPUs as NVIDIA's own tool reads them; None without one. Takes a while: for a worker."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, timeout=_GPU_PATIENCE, check=True)
        rows = [[float(cell) for cell in line.split(",")] for line in told.stdout.decode().splitlines()]
        busy, used, total, heat = zip(*rows, strict=True)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    mega = 1 << 20
    return Gpu(
        busy=sum(busy) / len(busy) / 100,
        used=sum(used) * mega / 1e9,
        total=sum(total) * mega / 1e9,
        heat=max(heat),
    )


def network(routes: str | None, routes_6: str | None) -> str:
    """Whether the kernel's tables (/proc/net/route, ipv6_route) have a default route, in words."""
    if routes is None:
        return "not known on this system"
    ways = [row[0] for row in (line.split() for line in routes.splitlines()[1:]) if _default(row)]
    ways += [row[9] for row in (line.split() for line in (routes_6 or "").splitlines()) if _default_6(row)]
    return f"a route out by {ways[0]}" if ways else "no route out   OK"


def _default(row: list[str]) -> bool:
    return len(row) > 7 and row[1] == row[7] == "00000000" and _usable(row[3])


def _default_6(row: list[str]) -> bool:
    return len(row) > 9 and not int(row[0], 16) and row[1] == "00" and _usable(row[8]) and row[9] != "lo"


def _usable(flags: str) -> bool:
    value = int(flags, 16)
    return bool(value & _UP) and not value & _REJECT


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return None
