"""How a federation goes, as plain values: from the events of its newest job here, and what was committed.

A coordinator sees its sites and rounds, a site its own answers and what was spent of its budget; epsilon
spent at a site is known there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from appliance.core.home import Home
from appliance.ops import jobs
from appliance.ops.jobs import JobView
from appliance.privacy import ledger
from federated import checkpoint, rules, standing
from federated.checkpoint import Record
from federated.description import Federation, Site
from federated.place import Place, held, names
from federated.secure import attempt
from federated.words import why

_REFUSALS = 20
_KIND = {"coordinator": "federate", "site": "join", "asked": "join", "left": "join"}


def title(name: str, side: str) -> str:
    """What the job of a federation is called in lists; it is found again by it."""
    return f"{_KIND[side]} {name}"


def newest_job(home: Home, place: Place) -> JobView | None:
    """The newest job of a federation in this home."""
    wanted = title(place.path.name, standing.side(place))
    return next((job for job in jobs.jobs(home) if job.title == wanted and job.kind in _KIND.values()), None)


def listed(home: Home) -> list[dict[str, Any]]:
    """Every federation of a home: name, side, state of its job, rounds done and agreed."""
    found = []
    for name in names(home):
        place = held(home, name)
        side, job = standing.side(place), newest_job(home, place)
        known = None if side == "asked" else standing.agreed(place)
        found.append({
            "name": name,
            "side": side,
            "coordinator": known.coordinator if known else None,
            "sites": len(known.active()) if known else None,
            "rounds": known.rounds.count if known else None,
            "expires": known.expires.date().isoformat() if known else None,
            "ended": known.ended if known else False,
            "job": job.id if job else None,
            "state": job.state if job else None,
        })  # fmt: skip
    return found


def status(home: Home, name: str) -> dict[str, Any]:
    """Everything that is known here of a federation.

    Raises:
        NotFound: there is none. DataRejected: a committed round was altered.
    """
    place = held(home, name)
    side, job = standing.side(place), newest_job(home, place)
    told = [event for event in job.events if event["event"] == "federation"] if job else []
    found: dict[str, Any] = {
        "name": name,
        "side": side,
        "job": {
            "id": job.id,
            "state": job.state,
            "error": job.end.get("message"),
            "hint": job.end.get("hint"),
        }
        if job
        else None,
        "refused": list(_refusals(told))[-_REFUSALS:],
        "processes": {event["name"]: event["state"] for event in told if event["what"] == "process"},
    }
    if side == "asked":
        return found | {"site": standing.noted(place).site}
    federation = standing.agreed(place)
    found["agreement"] = _agreement(federation)
    if side == "coordinator":
        return found | _coordinator(place, federation, job, told)
    return found | _site(home, place, federation, job, told)


def _agreement(federation: Federation) -> dict[str, Any]:
    rounds, training, model = federation.rounds, federation.training, federation.model
    return {
        "version": federation.version,
        "coordinator": federation.coordinator,
        "gateway": federation.gateway,
        "expires": federation.expires.isoformat(),
        "ended": federation.ended,
        "base": model.base,
        "base_sha256": model.sha256,
        "task": federation.task.model_dump(),
        "rounds": rounds.count,
        "quorum": rounds.quorum,
        "deadline_minutes": rounds.deadline_minutes,
        "min_cohort": rounds.min_cohort,
        "secure": rounds.secure,
        "mode": mode(federation),
        "clip_bound": rounds.clip_bound,
        "epsilon": training.epsilon if training.private else None,
        "delta": training.delta if training.private else None,
        "unit": training.unit,
        "code": federation.code.model_dump(),
    }  # fmt: skip


def mode(federation: Federation) -> str:
    """Which of the two is in force, secure aggregation or a look at each update, in words."""
    rounds = federation.rounds
    if rounds.secure:
        return "secure aggregation (the coordinator sees the sum alone)"
    rule = "plain mean" if rounds.rule == "mean" else f"robust: {rounds.rule}"
    return f"{rule} (the coordinator sees each update)"


def _coordinator(
    place: Place, federation: Federation, job: JobView | None, told: list[dict[str, Any]]
) -> dict[str, Any]:
    live = job is not None and job.state == "running"
    records = list(_records(place, federation))
    there: list[str] = next((event["there"] for event in reversed(told) if event["what"] == "sites"), [])
    number = len(records) + 1
    running = checkpoint.kept_round(place.path, number) if number <= federation.rounds.count else None
    step = attempt.step_of(place.path, running) if running else None
    return {
        "round": None
        if running is None
        else {
            "round": running.number,
            "asked": running.asked,
            "step": step[0] if step else "gathers updates",
            "waiting_for": step[1] if step else list(running.open),
            "deadline": datetime.fromtimestamp(running.deadline, UTC).isoformat(timespec="seconds"),
            "refused": dict(running.refused),
        },
        "rounds": [_round(record, told) for record in records],
        "sites": [
            _member(site, records, told, online=live and site.state == "in" and site.name in there)
            for site in federation.sites
        ],
    }


def _member(site: Site, records: list[Record], told: list[dict[str, Any]], *, online: bool) -> dict[str, Any]:
    last = next((one for one in reversed(records) if site.name in one.weights), None)
    return {
        "site": site.name,
        "state": site.state,
        "online": online,
        "seen": _seen(site.name, told, online=online),
        "round": last.round if last else None,
        "records": last.weights[site.name] if last else None,
        "registered": site.units,
        "seconds": _seconds_of(site.name, told),
        "last": _last_word(site.name, told),
    }


def _site(
    home: Home, place: Place, federation: Federation, job: JobView | None, told: list[dict[str, Any]]
) -> dict[str, Any]:
    own = standing.noted(place)
    seat = next((number for number, one in enumerate(federation.sites, 1) if one.name == own.site), None)
    policy = rules.kept(place)
    budget = ledger.budget(home, policy.dataset)
    return {
        "site": own.site,
        "seat": seat,
        "left": own.left or None,
        "policy": policy.model_dump(mode="json"),
        "answers": [
            {
                "at": event["at"],
                "round": event["round"],
                "answer": event["answer"],
                "why": None if event["answer"] == "sent" else why(event["answer"])[0],
                "bytes": event["bytes"],
            }
            for event in told
            if event["what"] == "round"
        ],
        "epsilon": {
            "dataset": policy.dataset,
            "spent": budget.spent() if budget else 0.0,
            "limit": budget.epsilon_limit if budget else ledger.EPSILON_LIMIT,
            "agreed": federation.training.epsilon if federation.training.private else None,
            "steps_here": sum(one.steps for one in ledger.charged(home, policy.dataset, job.id))
            if job
            else 0,
        },
    }


def _records(place: Place, federation: Federation) -> Iterator[Record]:
    number = 1
    while record := checkpoint.read_record(place.path, number, federation.coordinator_key):
        yield record
        number += 1


def _round(record: Record, told: list[dict[str, Any]]) -> dict[str, Any]:
    """A committed round. `loss` is what its sites told of the adapter that it began with."""
    of = [event for event in told if event["what"] == "round" and event.get("round") == record.round]
    opened = next((event["at"] for event in of if event["state"] == "open"), None)
    done = next((event["at"] for event in of if event["state"] == "done"), None)
    known = {site: loss for site, loss in record.losses.items() if loss >= 0 and record.weights.get(site)}
    whole = sum(record.weights[site] for site in known)
    loss = sum(record.weights[site] * one for site, one in known.items()) / whole / 1e6 if whole else None
    return {
        "round": record.round,
        "sites": sorted(record.weights),
        "records": sum(record.weights.values()),
        "rule": record.rule,
        "loss": loss,
        "seconds": _between(opened, done),
        "refused": {site: {"code": code, "why": why(code)[0]} for site, code in record.refused.items()},
    }


def _refusals(told: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What was refused and why: by a site, at the gate, at the gateway. Equal ones in a row are counted."""
    last: dict[str, Any] | None = None
    for event in told:
        if event["what"] not in ("refused", "refusal", "late"):
            continue
        code = str(event.get("reason", "late"))
        cause, step = why(code)
        row = {
            "at": event["at"],
            "site": event.get("site"),
            "from": event.get("place"),
            "round": event.get("round"),
            "code": code,
            "why": cause,
            "next": step,
            "times": 1,
        }
        same = ("site", "from", "round", "code")
        if last is not None and all(last[name] == row[name] for name in same):
            last["times"] += 1
            last["at"] = row["at"]
            continue
        if last is not None:
            yield last
        last = row
    if last is not None:
        yield last


def _seen(site: str, told: list[dict[str, Any]], *, online: bool) -> str | None:
    if online:
        return datetime.now(UTC).isoformat(timespec="milliseconds")
    for event in reversed(told):
        if event.get("site") == site or (
            event["what"] == "sites" and site in (*event["gone"], *event["there"])
        ):
            return str(event["at"])
    return None


def _last_word(site: str, told: list[dict[str, Any]]) -> str | None:
    """What a site did last, or why it was not taken."""
    for event in reversed(told):
        if event.get("site") != site or event["what"] not in ("update", "refusal", "refused", "late"):
            continue
        if event["what"] == "update":
            return f"sent round {event['round']}, {event['bytes']:,} bytes"
        return why(str(event.get("reason", "late")))[0]
    return None


def _seconds_of(site: str, told: list[dict[str, Any]]) -> float | None:
    """From the opening of the round that a site answered last to its answer."""
    for event in reversed(told):
        if event["what"] == "update" and event["site"] == site:
            opened = [
                one["at"]
                for one in told
                if one["what"] == "round"
                and one.get("round") == event["round"]
                and one.get("state") == "open"
            ]
            return _between(opened[-1] if opened else None, event["at"])
    return None


def _between(first: str | None, last: str | None) -> float | None:
    if first is None or last is None:
        return None
    return round((datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds(), 1)
