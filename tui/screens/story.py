"""A job's events folded into what its screen shows. Pure: events in, picture and log lines out.

A job that is run again writes on in the same file: a second "started" takes back the end, and steps
told a second time replace the first telling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from appliance.core.events import ENDS, Event
from tui.widgets.chart import Point

MOST_POINTS = 200


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a job's log. `at` is local time, HH:MM:SS."""

    at: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """All that is known of a job now. `left` is in seconds; points are (step, loss)."""

    state: str = "waiting"
    started: str = ""
    newest: str = ""
    stage: str = ""
    model: str = ""
    done: float = 0.0
    total: float = 0.0
    left: float | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    losses: tuple[Point, ...] = ()
    validation: tuple[Point, ...] = ()
    plan: Event | None = None
    ready: Event | None = None
    end: Event | None = None

    @property
    def share(self) -> float | None:
        """How far the stage is, 0 to 1; None before the first progress."""
        if not self.stage:
            return None
        return min(1.0, max(0.0, self.done / self.total)) if self.total else 1.0


class Story:
    """Takes events as they come and keeps the picture."""

    def __init__(self) -> None:
        self._now = Picture()
        self._losses: list[Point] = []
        self._validation: list[Point] = []
        self._stage_began: tuple[float, float] = (0.0, 0.0)

    @property
    def picture(self) -> Picture:
        """The picture now, its curves thinned to MOST_POINTS each."""
        return replace(self._now, losses=thinned(self._losses), validation=thinned(self._validation))

    def take(self, events: list[Event], state: str) -> list[Line]:
        """Fold in new events and the job's state; returns the lines they add to the log."""
        lines = [
            Line(at=clock(event.get("at", "")), text=text) for event in events for text in self._take(event)
        ]
        self._now = replace(self._now, state=state)
        return lines

    def _take(self, event: Event) -> list[str]:
        kind = event["event"]
        self._now = replace(self._now, newest=event.get("at", self._now.newest))
        if kind == "progress":
            return self._progress(event)
        if kind == "log":
            return [str(event.get("text", ""))]
        if kind == "plan":
            self._now = replace(self._now, plan=event)
            return ["plan made"]
        if kind == "ready":
            self._now = replace(self._now, ready=event)
            return [f"ready at {event.get('url', '')}".rstrip()]
        if kind == "dataset":
            return [f"dataset {event.get('name')}@{event.get('version')}"]
        if kind == "started":
            again = bool(self._now.started)
            self._now = replace(self._now, started=event.get("at", ""), end=None, ready=None, left=None)
            return ["started again" if again else "started"]
        if kind in ENDS:
            self._now = replace(self._now, end=event, left=None)
            return [ending(event)]
        return []

    def _progress(self, event: Event) -> list[str]:
        stage, done, total = str(event["stage"]), float(event["done"]), float(event["total"])
        at = seconds(event.get("at", ""))
        new = stage != self._now.stage
        if new:
            self._stage_began = (at, done)
        figures = {
            key: value
            for key, value in event.items()
            if key not in ("event", "at", "stage", "done", "total", "left") and usable(value)
        }
        self._now = replace(
            self._now,
            stage=stage,
            model=str(event.get("model") or ""),
            done=done,
            total=total,
            left=self._left(event, at),
            figures=figures if new else {**self._now.figures, **figures},
        )
        for key, points in (("loss", self._losses), ("validation_loss", self._validation)):
            if key in figures:
                while points and points[-1][0] >= done:
                    points.pop()
                points.append((done, float(figures[key])))
        return [f"stage {stage}"] if new else []

    def _left(self, event: Event, at: float) -> float | None:
        """Seconds left: as the job says, else from the pace of this stage."""
        if usable(event.get("left")):
            return max(0.0, float(event["left"]))
        began, first = self._stage_began
        done, total = float(event["done"]), float(event["total"])
        if done <= first or done >= total or at <= began:
            return None
        return (at - began) / (done - first) * (total - done)


def usable(value: object) -> bool:
    """A finite number that can be shown."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def thinned(points: list[Point], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """At most `most` of the points, evenly taken, always with the last."""
    if len(points) <= most:
        return tuple(points)
    step = (len(points) - 1) / (most - 1)
    return tuple(points[round(place * step)] for place in range(most))


def ending(event: Event) -> str:
    """The last line of a job's log."""
    if event["event"] == "failed":
        return f"failed: {event.get('message', '')}"
    if event["event"] == "stopped":
        return f"stopped ({event.get('reason', 'asked')})"
    return "done"


def seconds(at: str) -> float:
    """Seconds since 1970 of an event's time, 0 for none."""
    try:
        return datetime.fromisoformat(at).timestamp()
    except ValueError:
        return 0.0


def clock(at: str, form: str = "%H:%M:%S") -> str:
    """An event's time as the local clock shows it."""
    try:
        return datetime.fromisoformat(at).astimezone().strftime(form)
    except ValueError:
        return "--:--:--"


def length(total: float) -> str:
    """A length of time: 00:41, 1:02:03, 3 d 04 h."""
    whole = max(0, int(total))
    days, rest = divmod(whole, 86400)
    hours, minutes = rest // 3600, rest // 60 % 60
    if days:
        return f"{days} d {hours:02d} h"
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes:02d}:{whole % 60:02d}"
