"""A job's events as lines of text: one line per stage, redrawn on a terminal, thinned out elsewhere."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from typing import Any

from tui.cli.federate_lines import event_line
from tui.cli.tables import wrapped
from tui.words import NO_PRIVACY, PUBLIC

_QUIET_SECONDS = 5.0
_FIGURES = {
    "loss": "loss {:.3f}",
    "validation_loss": "val {:.3f}",
    "epsilon": "eps <= {:.2f}",
    "clipped": "clipped {:.0%}",
    "tokens_per_second": "{:,.0f} tok/s",
    "records": "{:,} records",
    "requests": "{:,} requests",
}
_LEAST_FIRST = ("tokens_per_second", "requests", "records", "clipped", "validation_loss", "epsilon", "loss")


class Lines:
    """Prints progress. `live`: redraw the line in place, at most ten times a second.

    `planned` is the plan that was shown before the start: the job's own is shown only where it differs.
    """

    def __init__(
        self, say: Callable[[str], None], *, live: bool, planned: Mapping[str, Any] | None = None
    ) -> None:
        self._say, self._live, self._planned = say, live, planned
        self._stage = ""
        self._shown = 0.0
        self._open = False
        self._first: tuple[float, float] | None = None

    def show(self, event: dict[str, Any]) -> None:
        """Show one event, or keep quiet when the last line is fresh enough."""
        kind = event["event"]
        if kind == "progress":
            self._progress(event)
        elif kind == "log":
            self.close()
            for line in wrapped(event["text"], "  ") or [""]:
                self._say(line)
        elif kind == "federation" and (said := event_line(event)):
            self.close()
            for line in wrapped(said, "  ", "    "):
                self._say(line)
        elif kind == "plan":
            if self._planned is not None and same_plan(self._planned, event):
                return
            self.close()
            for text in plan_lines(event):
                for line in wrapped(text, "  ", "    "):
                    self._say(line)

    def close(self) -> None:
        """End the line that is being redrawn."""
        if self._open:
            sys.stderr.write("\n") if self._live else None
            self._open = False

    def _progress(self, event: dict[str, Any]) -> None:
        now = time.monotonic()
        new = event["stage"] != self._stage
        last = event["done"] >= event["total"]
        if new:
            self.close()
            self._stage, self._first = event["stage"], (now, event["done"])
        pause = 0.1 if self._live else _QUIET_SECONDS
        if not (new or last or now - self._shown >= pause):
            return
        self._shown = now
        left = self._left(event, now)
        if self._live:
            room = shutil.get_terminal_size().columns - 1  # the last column would wrap on some terminals
            sys.stderr.write("\r\x1b[K" + progress_line(event, left=left, width=room))
            sys.stderr.flush()
            self._open = True
        else:
            self._say(progress_line(event, left=left))

    def _left(self, event: dict[str, Any], now: float) -> float | None:
        """Seconds left: as the job says, else from the pace so far."""
        if event.get("left") is not None:
            return float(event["left"])
        if self._first is None or event["done"] >= event["total"]:
            return None
        began, before = self._first
        if event["done"] <= before:
            return None
        return float((now - began) / (event["done"] - before) * (event["total"] - event["done"]))


def progress_line(event: dict[str, Any], *, left: float | None, width: int | None = None) -> str:
    """One line: stage, gauge, share, figures, time left; at most `width` long, the least figures go first."""
    share = min(1.0, event["done"] / event["total"]) if event["total"] else 1.0
    counted = isinstance(event.get("loss"), int | float)  # training: people ask for the step
    cells = (16 if counted else 20) if width is None or width >= 72 else 8
    filled = round(share * cells)
    gauge = "#" * filled + "." * (cells - filled)
    place = f"{event['done']}/{event['total']}" if counted else f"{share:>4.0%}"
    head = f"  {event['stage']:<12} [{gauge}] {place}"
    figures = {
        name: text.format(event[name])
        for name, text in _FIGURES.items()
        if isinstance(event.get(name), int | float)
    }
    if left is not None and share < 1:
        figures["left"] = f"left {int(left) // 60:02d}:{int(left) % 60:02d}"
    for name in _LEAST_FIRST:
        if width is None or len("  ".join([head, *figures.values()])) <= width:
            break
        figures.pop(name, None)
    return "  ".join([head, *figures.values()])[:width]


def same_plan(planned: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Whether a job goes by the plan that was shown: its length, its noise, what it spends, its warnings."""
    for name in ("steps", "trials", "records", "noise_multiplier", "epsilon_before", "epsilon_after"):
        first, second = planned.get(name), event.get(name)
        if isinstance(first, float) and isinstance(second, float):
            if not math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9):
                return False
        elif first != second:
            return False
    return set(event.get("warnings", ())) <= set(planned.get("warnings", ()))


def newest_run(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of a job's past: the plan and what came since its newest start; a stage's last progress, no `left`.

    A stage that is over and never said that it was full is left out: its share would look unfinished.
    """
    starts = [place for place, event in enumerate(events) if event["event"] == "started"]
    at = starts[-1] if starts else 0
    plans = [event for event in events[:at] if event["event"] == "plan"]
    run = events[at:]
    if plans and not any(event["event"] == "plan" for event in run):
        run = [plans[-1], *run]
    last = {event["stage"]: place for place, event in enumerate(run) if event["event"] == "progress"}
    over = any(event["event"] == "done" for event in run)
    newest = max(last.values(), default=0)
    kept = [
        event
        for place, event in enumerate(run)
        if event["event"] != "progress"
        or (
            last[event["stage"]] == place
            and (event["done"] >= event["total"] or (place == newest and not over))
        )
    ]
    return [{key: value for key, value in event.items() if key != "left"} for event in kept]


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """What a training run is about to do, in plain words."""
    synthetic = " (synthetic)" if plan.get("synthetic") else ""
    lines = [f"{plan['records']:,} training records{synthetic}, {plan['steps']} steps{_trials(plan)}"]
    warned = [f"Warning: {text}" for text in plan.get("warnings", [])]
    if plan.get("public"):
        return [*lines, PUBLIC, *warned]
    if plan.get("noise_multiplier") is None:
        return [*lines, NO_PRIVACY, *warned]
    made_up = plan.get("made_up", 0)
    unit, after = plan["unit"], "all trials" if "trials" in plan else "this run"
    return [
        *lines,
        f"Protected: each of {plan['units'] - made_up:,} {unit}s, with all records of that {unit}"
        + (f" (and {made_up:,} made-up ones)" if made_up else ""),
        f"Budget: epsilon {plan['epsilon_before']:.2f} spent before,"
        f" {plan['epsilon_after']:.2f} after {after}, delta {plan['delta']:.2g}",
        f"Each step: about {plan['expected_batch']:,.0f} {unit if plan['sampling'] == 'unit' else 'record'}s"
        f" (Poisson, rate {plan['sample_rate']:g}),"
        f" noise multiplier {plan['noise_multiplier']:.3f},"
        f" noise on the mean {plan['noise_on_mean']:.1e} of the clip bound",
        *warned,
    ]


def _trials(plan: dict[str, Any]) -> str:
    return f" in each of {plan['trials']} trials" if "trials" in plan else ""


def preview_lines(plan: dict[str, Any], width: int = 79) -> list[str]:
    """The plan of Session.plan_training for people: one fact a line, wrapped with a hanging indent."""
    synthetic = ", synthetic" if plan["synthetic"] else ""
    needs, rate = plan["memory"], f"learning rate {plan['learning_rate']:g}, {plan['schedule']}"
    kept = f"{_gigabytes(needs['free'])} are free here" + (", not counting the GPU" if needs["gpu"] else "")
    facts = [
        *(("WARNING", text) for text in plan["warnings"]),
        ("records", f"{plan['records']:,} to train on ({plan['dataset']}@{plan['version']}{synthetic})"),
        *_privacy_facts(plan),
        ("trained", f"{plan['what']}: {plan['trained']:,} of {plan['parameters']:,} parameters"),
        _steps_fact(plan, rate),
        (
            "memory",
            f"about {_gigabytes(needs['total'])}; full fine-tuning about {_gigabytes(needs['full'])}; {kept}",
        ),
        ("time", about(plan["seconds"])),
    ]
    return [
        line
        for name, text in facts
        for line in textwrap.wrap(
            text,
            width,
            initial_indent=f"  {name:<10} ",
            subsequent_indent=" " * 13,
            break_on_hyphens=False,
        )
    ]


def _steps_fact(plan: dict[str, Any], rate: str) -> tuple[str, str]:
    if "trials" not in plan:
        return "steps", f"{plan['steps']:,}, {rate}"
    over = ", ".join(f"{name} {values}" for name, values in plan["over"].items())
    return (
        "search",
        f"{plan['trials']} trials of {plan['steps']:,} steps over {over}; best by validation loss",
    )


def _privacy_facts(plan: dict[str, Any]) -> list[tuple[str, str]]:
    who, spent = plan["protected"], plan["epsilon"]
    if plan.get("public"):
        return [("privacy", PUBLIC)]
    if who is None or spent is None:
        return [("privacy", NO_PRIVACY)]
    unit, drawn = who["unit"], plan["unit"] if plan["sampling"] == "unit" else "record"
    return [
        (
            "protected",
            f"{who['units']:,} {unit}s with {who['mean']:.1f} records on average, {who['largest']:,} at most"
            + (f" (and {who['made_up']:,} made-up ones);" if who.get("made_up") else ";")
            + f" of one {unit} no more than {who['used']} in a {who['used_in']}",
        ),
        (
            "epsilon",
            f"{spent['before']:.2f} spent so far; this run alone {spent['run']:.2f}; together"
            f" {spent['after']:.2f} of {spent['limit']:g}, {spent['left']:.2f} left;"
            f" delta {spent['delta']:.2g}",
        ),
        (
            "noise",
            f"multiplier {plan['noise_multiplier']:.3f}{_single(plan)},"
            f" about {plan['expected_batch']:,.0f} {drawn}s a step; on the mean"
            f" {plan['noise_on_mean']:.1e} of the clip bound, {plan['noise_ratio']:.2g} times as long as the"
            " longest gradient",
        ),
    ]


def _single(plan: dict[str, Any]) -> str:
    """What all trials together cost one of them."""
    alone = plan.get("noise_single")
    return "" if alone is None else f" (one run alone would have {alone:.3f})"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def about(seconds: float | None) -> str:
    """A guessed time in words that do not claim more than it knows."""
    if seconds is None:
        return "known after the first steps"
    unit = next(
        (
            f"{seconds / size:.0f} {name}"
            for size, name in ((3600, "h"), (60, "min"))
            if seconds >= 1.5 * size
        ),
        f"{max(10, round(seconds, -1)):.0f} s",
    )
    return f"about {unit}; known better after the first steps"
