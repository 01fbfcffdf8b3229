"""A job's events folded into what its screen shows. Pure: events in, picture and log lines out.

A job that is run again writes on in the same file: a second "started" takes back the end, and steps
told a second time replace the first telling.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from appliance.core.events import ENDS, Event
from tui.screens.sayings import ending, plan_said, round_said, step_said, usable
from tui.widgets.chart import Point

MOST_POINTS = 200
_STEP_LINES = 20  # of a run, in its log


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a job's log. `at` is local time, HH:MM:SS."""

    at: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a job, in the order in which they began; `what` is the model or test it is about."""

    name: str
    what: str = ""
    done: float = 0.0
    total: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """How far it is, 0 to 1."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total else 1.0


@dataclass(frozen=True, kw_only=True)
class Picture:
    """All that is known of a job now. `left` is in seconds; points are (step, value).

    `why` is how it died, in words; `rounds` what was said last of each federated round; `saved` the last
    step that a resumed run need not take again, and the time by which that was so.
    """

    state: str = "waiting"
    why: str = ""
    started: str = ""
    newest: str = ""
    stage: str = ""
    model: str = ""
    done: float = 0.0
    total: float = 0.0
    left: float | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    losses: tuple[Point, ...] = ()
    validation: tuple[Point, ...] = ()
    epsilons: tuple[Point, ...] = ()
    saved: tuple[float, str] | None = None
    rounds: tuple[tuple[int, str], ...] = ()
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
        self._curves: dict[str, list[Point]] = {key: [] for key in ("loss", "validation_loss", "epsilon")}
        self._stages: dict[tuple[str, str], Stage] = {}
        self._rounds: dict[int, str] = {}
        self._stage_began: tuple[float, float] = (0.0, 0.0)
        self._curve_of = ""
        self._told = 0.0

    @property
    def picture(self) -> Picture:
        """The picture now, its curves thinned to MOST_POINTS each."""
        return replace(
            self._now,
            losses=thinned(self._curves["loss"]),
            validation=thinned(self._curves["validation_loss"]),
            epsilons=thinned(self._curves["epsilon"]),
            stages=tuple(self._stages.values()),
            rounds=tuple(self._rounds.items()),
        )

    def take(self, events: list[Event], state: str, why: str = "") -> list[Line]:
        """Fold in new events and the job's state; returns the lines they add to the log."""
        lines = [
            Line(at=clock(event.get("at", "")), text=text) for event in events for text in self._take(event)
        ]
        self._now = replace(self._now, state=state, why=why)
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
            return plan_said(event)
        if kind == "ready":
            self._now = replace(self._now, ready=event)
            return [f"ready at {event.get('url', '')}".rstrip()]
        if kind == "dataset":
            return [f"dataset {event.get('name')}@{event.get('version')}"]
        if kind in ("federation", "simulated"):
            return self._round(event)
        if kind == "started":
            return self._started(event)
        if kind in ENDS:
            self._now = replace(self._now, end=event, left=None)
            return [ending(event)]
        return []

    def _started(self, event: Event) -> list[str]:
        again = bool(self._now.started)
        self._now = replace(self._now, started=event.get("at", ""), end=None, ready=None, left=None)
        self._stages.clear()
        return ["started again" if again else "started"]

    def _round(self, event: Event) -> list[str]:
        said = round_said(event)
        number = event.get("round")
        if said and isinstance(number, int) and event.get("what", "round") == "round":
            self._rounds[number] = said.removeprefix(f"round {number}: ")
        return [said] if said else []

    def _progress(self, event: Event) -> list[str]:
        stage, done, total = str(event["stage"]), float(event["done"]), float(event["total"])
        test = event.get("test")  # of an import, how many records it has
        what = str(event.get("model") or (test if isinstance(test, str) else ""))
        at = seconds(event.get("at", ""))
        new = stage != self._now.stage
        if new:
            self._stage_began, self._told = (at, done), 0.0
        if "loss" in event and stage != self._curve_of:
            self._curve_of = stage
            for points in self._curves.values():  # they were another trial's or round's
                points.clear()
        figures = {
            key: value
            for key, value in event.items()
            if key not in ("event", "at", "stage", "done", "total", "left") and usable(value)
        }
        checkpointed = "loss" in event and (stage == "train" or stage.startswith("trial "))
        self._stages[stage, what] = Stage(name=stage, what=what, done=done, total=total, figures=figures)
        self._now = replace(
            self._now,
            stage=stage,
            model=str(event.get("model") or ""),
            done=done,
            total=total,
            left=self._left(event, at),
            figures=figures if new else {**self._now.figures, **figures},
            saved=(done - 1, event.get("at", "")) if checkpointed and done > 1 else self._now.saved,
        )
        for key, points in self._curves.items():
            if key in figures:
                while points and points[-1][0] >= done:
                    points.pop()
                points.append((done, float(figures[key])))
        return [*([f"stage {stage}"] if new else []), *self._step(event, done, total)]

    def _step(self, event: Event, done: float, total: float) -> list[str]:
        """A line on a step of training: a few in a run, and each that was judged."""
        due = (
            "validation_loss" in event or done >= total or done - self._told >= max(1.0, total / _STEP_LINES)
        )
        if "loss" not in event or not due:
            return []
        self._told = done
        return [step_said(event)]

    def _left(self, event: Event, at: float) -> float | None:
        """Seconds left: as the job says, else from the pace of this stage."""
        if usable(event.get("left")):
            return max(0.0, float(event["left"]))
        began, first = self._stage_began
        done, total = float(event["done"]), float(event["total"])
        if done <= first or done >= total or at <= began:
            return None
        return (at - began) / (done - first) * (total - done)


def thinned(points: list[Point], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """At most `most` of the points, evenly taken, always with the last."""
    if len(points) <= most:
        return tuple(points)
    step = (len(points) - 1) / (most - 1)
    return tuple(points[round(place * step)] for place in range(most))


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
