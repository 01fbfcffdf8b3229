"""How benchmarks talk: rows of one shape, as a table or as JSON lines."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any


def row(bench: str, case: str, metric: str, ours: float, peer: float | None, unit: str) -> dict[str, Any]:
    """One measured figure beside its peer's; `ratio` is ours / peer."""
    ratio = None if not peer else round(ours / peer, 4)
    return {
        "bench": bench,
        "case": case,
        "metric": metric,
        "ours": round(ours, 6),
        "peer": None if peer is None else round(peer, 6),
        "ratio": ratio,
        "unit": unit,
    }


def show(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print the rows."""
    if as_json:
        for found in rows:
            print(json.dumps(found), flush=True)
        return
    print(f"{'case':<22} {'metric':<28} {'ours':>12} {'peer':>12} {'ratio':>8}  unit")
    for found in rows:
        peer = "-" if found["peer"] is None else f"{found['peer']:.4f}"
        ratio = "-" if found["ratio"] is None else f"{found['ratio']:.3f}"
        print(
            f"{found['case']:<22} {found['metric']:<28} {found['ours']:>12.4f} {peer:>12} {ratio:>8}"
            f"  {found['unit']}",
            flush=True,
        )


def alternate(ours: Callable[[], object], peer: Callable[[], object], rounds: int = 9) -> tuple[float, float]:
    """Median CPU seconds of both, measured in turns so that a busy machine slows both alike."""
    taken: tuple[list[float], list[float]] = ([], [])
    ours(), peer()
    for _ in range(rounds):
        for place, work in enumerate((ours, peer)):
            began = time.process_time()
            work()
            taken[place].append(time.process_time() - began)
    return statistics.median(taken[0]), statistics.median(taken[1])
