"""What Serve shows of a running endpoint, as lines; its keys are those of a serve job's progress. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tui.screens.story import seconds
from tui.widgets.gauge import gauge

MINUTES = 60
_HOUR, _JOULES_PER_KWH = 3600.0, 3.6e6


@dataclass(frozen=True, kw_only=True)
class Hour:
    """What an endpoint did lately: `up` seconds, counts of the last hour, requests of its last minutes."""

    up: float
    requests: int
    errors: int
    refused: int
    minutes: tuple[int, ...]


def last_hour(events: Sequence[Mapping[str, Any]], now: float) -> Hour:
    """From the events of a serve job; `now` is in seconds since 1970."""
    up, newest = 0.0, {"requests": 0, "errors": 0, "refused": 0}
    before = dict(newest)
    ends: dict[int, int] = {}  # requests so far at the end of each minute back from now
    for event in reversed(events):
        at = seconds(str(event.get("at", "")))
        if event["event"] == "ready":
            up = now - at
            break
        if event["event"] != "progress" or "requests" not in event:
            continue
        counts = {name: int(event.get(name) or 0) for name in newest}
        if not ends:
            newest = counts
        if now - at >= _HOUR:
            before = counts
            break
        ends.setdefault(int((now - at) // 60), counts["requests"])
    if not up:
        found = next((event for event in reversed(events) if event["event"] == "ready"), None)
        up = now - seconds(str(found["at"])) if found else 0.0
    minutes, known = [], before["requests"]
    for back in range(MINUTES - 1, -1, -1):
        minutes.append(max(0, ends.get(back, known) - known))
        known = max(known, ends.get(back, known))
    return Hour(
        up=up,
        requests=newest["requests"] - before["requests"],
        errors=newest["errors"] - before["errors"],
        refused=newest["refused"] - before["refused"],
        minutes=tuple(minutes),
    )


def up_words(up: float) -> str:
    """`3 d 04 h`, `2 h 05 min`, `40 s`."""
    minutes, hours = int(up // 60), int(up // 3600)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02d} h"
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes else f"{max(0, int(up))} s"


def engine_lines(one: Mapping[str, Any], width: int) -> list[str]:
    """Model, address, slots, queue."""
    engines = one.get("engines") or {}
    names = one.get("models_asked") or list(engines) or [str(one.get("model") or "-")]
    slots = sum(int(facts.get("slots") or 0) for facts in engines.values())
    busy = min(int(one.get("active") or 0), slots) if slots else int(one.get("active") or 0)
    kinds = sorted({str(facts["engine"]) for facts in engines.values() if facts.get("engine")})
    asleep = [name for name in one.get("names") or [] if name not in engines]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    lines = [
        f"model   {names[0]}{more}",
        f"at      {one['url']}/v1",
        f"slots   {busy}/{slots} busy   queue {one.get('queued') or 0}",
        f"engine  {', '.join(kinds) or one.get('engine') or '-'}"
        + (f"   asleep: {len(asleep)}" if asleep and engines else ""),
    ]
    return [_cut(line, width) for line in lines]


def hour_lines(one: Mapping[str, Any], hour: Hour, width: int) -> list[str]:
    """Requests, errors, first token, what a query costs."""
    p50, p95 = one.get("first_token_p50_ms"), one.get("first_token_p95_ms")
    first = "-" if p50 is None or p95 is None else f"p50 {p50:,.0f} p95 {p95:,.0f} ms"
    refused = f"   refused {hour.refused:,}" if hour.refused else ""
    lines = [
        f"requests {hour.requests:,}   errors {hour.errors:,}{refused}",
        f"first token {first}",
        f"cost/query {_cost(one)}",
        f"{one.get('tokens_per_second') or 0:,.0f} tok/s   memory {one.get('rss_mb') or 0:,.0f} MiB",
    ]
    return [_cut(line, width) for line in lines]


def _cost(one: Mapping[str, Any]) -> str:
    joules = one.get("joules_per_query")
    if joules is None:
        return "-"
    sign = "" if str(one.get("energy", "")).startswith("measured") else "about "
    energy = f"{sign}{joules / _JOULES_PER_KWH:.2g} kWh"
    money = one.get("cost_per_query")
    return energy if money is None else f"{energy}, {money:.2g} in money"


def route_lines(one: Mapping[str, Any], width: int) -> list[str]:
    """Who answered how much: each route's arms, else each model, and the cache."""
    hits = int(one.get("cache_hits") or 0)
    by_route = dict(one.get("routes") or {})
    by_model = dict(one.get("models") or {})
    for arm, count in by_route.items():
        model = arm.partition(" -> ")[2]
        by_model[model] = by_model.get(model, 0) - count
    parts = {**by_route, **{name: count for name, count in by_model.items() if count > 0}}
    if one.get("cache_hits") is not None:
        parts["cache hit"] = hits
    total = sum(parts.values())
    if not total:
        return ["Nothing was asked yet."]
    bar = 10 if width >= 34 else 6
    room = width - bar - 9
    return [
        f"{_cut(name, room):<{room}} {count / total:>4.0%} {gauge(count / total, bar)}"
        for name, count in sorted(parts.items(), key=lambda part: (part[0] == "cache hit", -part[1]))
    ]


def rate_lines(hour: Hour, width: int, height: int, clock: str) -> list[str]:
    """Requests a minute as columns: `:` a whole cell, `.` half of one; the newest is at the right."""
    columns, rows = min(MINUTES, width - 5), height - 1
    if columns < 10 or rows < 2:
        return []
    shown = hour.minutes[-columns:]
    top = max(max(shown), rows)
    cells = [[" "] * columns for _ in range(rows)]
    for column, count in enumerate(shown):
        halves = round(count / top * rows * 2) or (1 if count else 0)
        for row in range(halves // 2):
            cells[rows - 1 - row][column] = ":"
        if halves % 2:
            cells[rows - 1 - halves // 2][column] = "."
    labels = {0: f"{top:>3}", rows - 1: "  0"} if rows < 3 else {0: f"{top:>3}"}
    lines = [f"{labels.get(row, '   ')} |{''.join(line)}".rstrip() for row, line in enumerate(cells)]
    foot = f" {clock}"
    return [*lines, f"  0 +{'-' * (columns - len(foot))}{foot}"]


def clock_of(now: float) -> str:
    """The time of day here."""
    return datetime.fromtimestamp(now).astimezone().strftime("%H:%M")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 2] + ".."
