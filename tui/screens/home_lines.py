"""The text of Home's panes. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from appliance.data.store import Dataset
from appliance.serve.review import STATES
from tui.screens.machine import Machine
from tui.screens.site import LIVE, JobRow, SiteView
from tui.steps import NextStep
from tui.widgets.fit import column, fit
from tui.widgets.gauge import gauge_line

_LOW = 0.95


def step_text(step: NextStep, key: str, width: int) -> str:
    """The next step with what Enter does, then why."""
    key = f"[Enter: {key}]"
    room = width - len(step.text) - 2
    first = f"> {step.text}{key:>{room}}" if room > len(key) else f"> {step.text} {key}"
    why = textwrap.wrap(step.why, max(20, width), initial_indent="  ", subsequent_indent="  ")
    return "\n".join([first, *why])


def way_text(view: SiteView, width: int) -> str:
    """From data to answer: what is there of each step, with a sign and a word."""
    busy = {job.kind for job in view.jobs if job.state in LIVE}
    lines = []
    for kind, name, found in _way(view):
        sign = ">" if kind in busy else "x" if found else " "
        note = found or ("running" if kind in busy else "-")
        lines.append(fit(f"[{sign}] {name:<9} {note}", width).rstrip())
    return "\n".join(lines)


def _way(view: SiteView) -> list[tuple[str, str, str]]:
    data = view.datasets[-1] if view.datasets else None
    adapters = [model for model in view.models if model.trained]
    newest = adapters[-1] if adapters else None
    files = [model for model in view.models if newest and model.parent == newest.name]
    privacy = (newest.facts.get("privacy") or {}) if newest else {}
    epsilon = f"eps {privacy['epsilon']:.2f}" if "epsilon" in privacy else "not private"
    verdict = view.passed.get(newest.name) if newest else None
    serving = next((job for job in view.jobs if job.kind == "serve" and job.state in LIVE), None)
    return [
        ("import", "Data", _data(data) if data else ""),
        ("train", "Train", f"{newest.name}  {epsilon}" if newest else ""),
        ("evaluate", "Evaluate", "" if verdict is None else "gate PASS" if verdict else "gate FAIL"),
        ("quantize", "Quantise", " ".join(str(file.facts.get("type", "")) for file in files).strip()),
        ("serve", "Serve", serving.title.removeprefix("serve ") if serving else ""),
    ]


def _data(data: Dataset) -> str:
    made = "synthetic" if data.synthetic else "records"
    return f"{data.title}  {sum(data.counts.values()):,} {made}"


def machine_text(machine: Machine | None, width: int) -> str:
    """Gauges of this machine."""
    if machine is None:
        return "reading ..."
    rows = [
        ("CPU", machine.cpu, f"{machine.cores} cores"),
        ("RAM", machine.ram, _of(machine.ram_used, machine.ram_total)),
        ("Disk", machine.disk, f"{machine.disk_left:.0f} GB left"),
    ]
    lines = [
        gauge_line(label, share, note + (" LOW" if label != "CPU" and share >= _LOW else ""), width)
        for label, share, note in rows
    ]
    return "\n".join([*lines, f"Network: {machine.network}"[:width]])


def _of(used: float, total: float) -> str:
    return f"{used:.1f}/{total:.1f} GB" if total < 9.95 else f"{used:.0f}/{total:.0f} GB"


def jobs_text(jobs: Sequence[JobRow], width: int, height: int) -> str:
    """The newest jobs, one a line."""
    if not jobs:
        return "No jobs yet. Every import, training, evaluation or endpoint is one. Enter: next step."
    return "\n".join(job_line(job, width) for job in jobs[: max(1, height)])


def job_line(job: JobRow, width: int) -> str:
    """Number, title, state in a word, percentage, time."""
    percent = job.percent if job.state != "done" and job.share is not None else ""
    tail = f" {job.state:<7} {percent:>4} {job.time:>6}"
    room = max(4, width - len(job.id) - 1 - len(tail))
    return fit(f"{job.id} {column(job.title, room)}{tail}", width)


def waiting_lines(alarms: Sequence[str], requests: int) -> list[str]:
    """What waits for people, and where it is."""
    lines = []
    if alarms:
        lines.append(f"! emergencies to review: {len(alarms)}, press 9 u")
    if requests:
        lines.append(f"! requests to sign: {requests}, press 9 r")
    return lines


def watch_text(view: SiteView, waiting: Sequence[str], budgets: Sequence[str], width: int) -> str:
    """What needs an eye: people that wait, jobs that ended badly, answers to judge, budgets."""
    bad = [
        job
        for place, job in enumerate(view.jobs[:10])
        if job.state in ("failed", "died") and not _done_since(job, view.jobs[:place])
    ]
    lines = [*waiting, *(f"! {job.id} {job.title} {job.state}" for job in bad[:3])]
    if fresh := sum(one.state == STATES[0] for one in view.feedback):
        lines.append(f"! feedback to judge: {fresh}, press 6 f")
    lines = lines or ["OK nothing waits, no job failed."]
    return "\n".join(fit(line, width) for line in [*lines, *(budgets or ["No budget used yet."])])


def _done_since(job: JobRow, newer: Sequence[JobRow]) -> bool:
    """Whether the same was done later, so that nobody need look at `job` any more."""
    return any(one.title == job.title and one.state in ("done", *LIVE) for one in newer)
