"""What the answers cost in energy and money: measured where the processor tells, else estimated."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_RAPL = Path("/sys/class/powercap/intel-rapl:0")
WATTS_PER_CORE = 10.0  # a server core at work, with its share of memory and power supply: an assumption


@dataclass(kw_only=True)
class Meter:
    """Joules since it was made. `price` is per kWh, in the site's own currency.

    Measured is the whole package (Linux powercap, intel-rapl:0), others' work and idling included;
    estimated is the CPU time of this process and its children times `watts` per core. What the cache
    spared is known only about: the engine's seconds that it spared, at the mean energy of those that were
    worked; of what is measured only the spans count in which there was work (`watch`).
    """

    watts: float = WATTS_PER_CORE
    price: float = 0.0
    rapl: Path = _RAPL

    def __post_init__(self) -> None:
        self._last = self._counter()
        self._joules, self._cpu = 0.0, cpu_seconds()
        self._busy = self._worked = 0.0
        self._measured = self._last is not None

    def joules(self) -> float:
        """Energy so far. Read or `watch` at least every few minutes: the processor's counter wraps."""
        if not self._measured:
            return max(0.0, cpu_seconds() - self._cpu) * self.watts
        now = self._counter()
        if now is not None and self._last is not None:
            wrap = _number(self.rapl / "max_energy_range_uj") or 0
            self._joules += ((now - self._last) if now >= self._last else now + wrap - self._last) / 1e6
        self._last = now if now is not None else self._last
        return self._joules

    def watch(self, worked: float, *, open_requests: int) -> None:
        """Call about once a second with the engines' seconds of work so far: idling is no answer's cost."""
        if not self._measured:
            return
        before = self._joules
        after = self.joules()
        if open_requests or worked > self._worked:
            self._busy += after - before
        self._worked = worked

    def facts(self, queries: int, *, worked: float = 0.0, saved: float | None = None) -> dict[str, Any]:
        """Energy and money, in all and for each of `queries`; `energy` says how it is known.

        With the engines' seconds `worked` and those that a cache `saved` also what that spared.
        """
        joules = self.joules()
        found: dict[str, Any] = {
            "energy": "measured" if self._measured else f"estimated at {self.watts:g} W a core",
            "joules": round(joules, 1),
        }
        if queries:
            found["joules_per_query"] = round(joules / queries, 3)
        if self.price:
            found["cost"] = joules / 3.6e6 * self.price
            if queries:
                found["cost_per_query"] = found["cost"] / queries
        if saved is not None and worked:
            spared = saved * (self._busy if self._measured else joules) / worked
            found["joules_saved"] = round(spared, 1)
            if self.price:
                found["cost_saved"] = spared / 3.6e6 * self.price
        return found

    def _counter(self) -> int | None:
        return _number(self.rapl / "energy_uj")


def cpu_seconds() -> float:
    """CPU time of this process, its living children and those that have ended."""
    own = os.times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def _number(path: Path) -> int | None:
    """Only root may read these counters on most systems."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
