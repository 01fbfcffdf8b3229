"""How benchmarks talk: rows of one shape, as a table or as JSON lines."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def row(
    bench: str,
    case: str,
    metric: str,
    ours: float,
    peer: float | None,
    unit: str,
    spread: float | None = None,
) -> dict[str, Any]:
    """One measured figure beside its peer's.

    `ratio` is ours / peer; `spread` half the interquartile range of the ratio round by round.
    """
    return {
        "bench": bench,
        "case": case,
        "metric": metric,
        "ours": _short(ours),
        "peer": None if peer is None else _short(peer),
        "ratio": None if not peer else round(ours / peer, 4),
        "unit": unit,
        "spread": None if spread is None else round(spread, 4),
    }


def _short(figure: float) -> float:
    """Six significant digits."""
    return float(f"{figure:.6g}")


def show(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print the rows."""
    if as_json:
        for found in rows:
            print(json.dumps(found), flush=True)
        return
    print(f"{'case':<30} {'metric':<38} {'ours':>12} {'peer':>12} {'ratio':>7} {'spread':>7}  unit")
    for found in rows:
        ratio, spread = ("-" if found[key] is None else f"{found[key]:.3f}" for key in ("ratio", "spread"))
        print(
            f"{found['case']:<30} {found['metric']:<38} {_figure(found['ours']):>12}"
            f" {_figure(found['peer']):>12} {ratio:>7} {spread:>7}  {found['unit']}",
            flush=True,
        )


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"


Clock = Callable[[], float]


def in_turns(
    works: Mapping[str, Callable[[], object]], rounds: int, clock: Clock = time.process_time
) -> dict[str, list[float]]:
    """Seconds of each work, round by round, so that a busy machine slows all alike.

    One turn of each goes before, unmeasured. The order changes from round to round, for what a work
    leaves in the caches helps the next one.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    order, shuffle = list(works), random.Random(0)
    for name in order:
        works[name]()
    for _ in range(rounds):
        shuffle.shuffle(order)
        for name in order:
            began = clock()
            works[name]()
            taken[name].append(clock() - began)
    return taken


def against(
    bench: str, case: str, taken: Mapping[str, list[float]], ours: str, peer: str, unit: str = "CPU s"
) -> dict[str, Any]:
    """The row that sets the median of `ours` beside the median of `peer`."""
    first, second = taken[ours], taken[peer]
    ratios = [one / other for one, other in zip(first, second, strict=True)]
    spread = None
    if len(ratios) > 1:
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
        spread = (high - low) / 2
    medians = statistics.median(first), statistics.median(second)
    return row(bench, case, f"{ours}/{peer}", *medians, unit, spread)
