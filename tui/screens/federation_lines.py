"""One federation in words of a given width. Pure; `found` is what session_federate.status gives."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tui.cli.tables import wrapped

Found = Mapping[str, Any]
SITES = ("SITE", "STATE", "RECORDS", "TIME", "ROUND", "LAST SEEN", "LAST")
ANSWERS = ("AT", "ROUND", "ANSWER", "BYTES")


def round_title(found: Found, now: datetime) -> str:
    """`Round 4 of 10  gathers updates  waits for 1 site  time left 06:30`."""
    agreed, running = found["agreement"], found["round"]
    done = len(found["rounds"])
    if agreed["ended"]:
        return f"Ended after {done} of {agreed['rounds']} rounds"
    if running is None:
        return f"{done} of {agreed['rounds']} rounds done"
    left = max(0, int((datetime.fromisoformat(running["deadline"]) - now).total_seconds()))
    missing = len(running["waiting_for"])
    lost = len(running["refused"])
    waits = f"waits for {missing} site{'' if missing == 1 else 's'}" if missing else "all have answered"
    waits += f", {lost} not taken" if lost else ""
    return (
        f"Round {running['round']} of {agreed['rounds']}  {running['step']}  {waits}"
        f"  time left {left // 60:02d}:{left % 60:02d}"
    )


def site_cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    """One site, as its coordinator knows it."""
    state = "online" if one["online"] else "away" if one["state"] == "in" else one["state"]
    return (
        one["site"],
        state,
        f"{one['records']:,}" if one["records"] is not None else "-",
        f"{one['seconds']:.1f} s" if one["seconds"] is not None else "-",
        str(one["round"] or "-"),
        "now" if one["online"] else one["seen"][5:16].replace("T", " ") if one["seen"] else "-",
        one["last"] or "-",
    )


def answer_cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    """One answer of this site."""
    return (one["at"][11:19], str(one["round"]), one["why"] or "sent", f"{one['bytes']:,}")


def model_lines(found: Found, width: int, height: int) -> list[str]:
    """The newest rounds of the global model, and who was not in them and why."""
    lines: list[str] = []
    for one in found["rounds"][-height:]:
        loss = f"loss {one['loss']:.4f}" if one["loss"] is not None else "loss not told"
        took = f"{one['seconds']:.1f} s" if one["seconds"] is not None else ""
        lines.append(f"{one['round']:>4}  {len(one['sites'])} sites  {loss}  {took}".rstrip()[:width])
        for site, no in one["refused"].items():
            lines += wrapped(f"without {site}: {no['why']}", "      ", width=width)
    return lines[-height:] if height > 0 and lines else ["no round is done yet"]


def rules_lines(found: Found, width: int) -> list[str]:
    """What was agreed."""
    agreed = found["agreement"]
    private = (
        f"epsilon at most {agreed['epsilon']:g} per {agreed['unit']} and site"
        if agreed["epsilon"] is not None
        else "WITHOUT PRIVACY"
    )
    told = [
        agreed["mode"],
        private,
        f"need {agreed['quorum']} sites a round, {agreed['deadline_minutes']:g} min; the round goes on"
        " without who is late",
        f"base {agreed['base']}, version {agreed['version']}, until {agreed['expires'][:10]}",
    ]
    return [line for one in told for line in wrapped(one, "", "  ", width=width)]


def refused_lines(found: Found, width: int, height: int) -> list[str]:
    """What was refused lately and why, the newest last."""
    lines = []
    for one in found["refused"]:
        who = one["site"] or one["from"] or "the coordinator"
        times = f" ({one['times']} times)" if one["times"] > 1 else ""
        told = f"{one['at'][11:19]} {who}: {one['why']}{times}; {one['next']}"
        lines += wrapped(told, "", "  ", width=width)
    return lines[-height:] if lines and height > 0 else ["nothing"]


def own_lines(found: Found, width: int) -> list[str]:
    """What this site lets be done with its records, and what it has spent."""
    policy, spent = found["policy"], found["epsilon"]
    told = [
        f"epsilon {spent['spent']:.2f} of {spent['limit']:g} spent of {spent['dataset']}"
        f" ({spent['steps_here']} steps of this job)",
        f"allows epsilon {policy['epsilon']:g}, at least {policy['min_cohort']} sites together, at most"
        f" {policy['max_rounds']} rounds",
    ]
    if policy["paused"]:
        told.append("PAUSED: it answers no round (p: answer again)")
    if policy["model_vetoed"]:
        told.append("VETOED: it answers no round of this model")
    if policy["vetoed"]:
        told.append(f"vetoed rounds: {', '.join(map(str, policy['vetoed']))}")
    if found["left"]:
        told.append(f"LEFT {found['left']}")
    return [line for one in told for line in wrapped(one, "", "  ", width=width)]


def job_words(found: Found) -> str:
    """How its job goes, with what to do where it failed."""
    job = found["job"]
    if job is None:
        return "not started"
    error = f": {job['error']} {job['hint'] or ''}".rstrip() if job["error"] else ""
    return f"job {job['id']} {job['state']}{error}"
