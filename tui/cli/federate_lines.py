"""How federations look in text: checks, rules, status, and the events of their jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tui.cli.face import Face

_SHOWN = 12


def checks(face: Face, found: Sequence[Mapping[str, Any]], *, joining: bool = False) -> None:
    """One line a check; of a failed one cause and next step. Who is `joining` may mend the link later."""
    for one in found:
        if one["good"]:
            face.wrap(f"{one['name']}: {one['found']}", "  ok     ", "         ")
        else:
            mark = "later" if joining and one["stops"] == "start" else "WRONG"
            face.wrap(f"{one['name']}: {one['cause']}", f"  {mark}  ", "         ")
            face.wrap(one["next"], "         ", "         ")


def policy(face: Face, found: Mapping[str, Any]) -> None:
    """A site's own rules in a line or two."""
    hours = (
        "" if found["from_time"] == found["to_time"] else f", {found['from_time']} to {found['to_time']} UTC"
    )
    face.wrap(
        f"rules of this site: {found['dataset']}, epsilon at most {found['epsilon']:g}, at least"
        f" {found['min_cohort']} sites together, at most {found['max_rounds']} rounds{hours}"
        + (", secure aggregation only" if found["secure_only"] else "")
        + ("" if found["tell_loss"] else ", its loss is not told"),
        "",
        "  ",
    )


def status(face: Face, found: Mapping[str, Any]) -> None:
    """A federation as it is known in this home."""
    job = found["job"]
    running = f"job {job['id']} {job['state']}" if job else "not started"
    face.say(f"{found['name']}: this home is {_SIDES[found['side']]}; {running}")
    if job and job["error"]:
        face.wrap(f"{job['error']} {job['hint'] or ''}".rstrip(), "  ", "  ")
    if found["side"] == "asked":
        face.say(f"  {found['site']} waits for its kit: cloister federate join KIT")
        return
    agreed = found["agreement"]
    private = (
        f"epsilon {agreed['epsilon']:g} per {agreed['unit']} and site"
        if agreed["epsilon"] is not None
        else "WITHOUT PRIVACY"
    )
    face.wrap(
        f"version {agreed['version']} by {agreed['coordinator']} ({agreed['gateway']}): {agreed['rounds']}"
        f" rounds on {agreed['base']}, {agreed['mode']}, {private}, "
        + ("ENDED" if agreed["ended"] else f"until {agreed['expires'][:10]}"),
        "  ",
        "  ",
    )
    (_coordinator if found["side"] == "coordinator" else _site)(face, found)
    if found["refused"]:
        face.say("refused:")
    for one in found["refused"][-_SHOWN:]:
        who = one["site"] or one["from"] or ("the coordinator" if found["side"] != "coordinator" else "?")
        times = f" ({one['times']} times)" if one["times"] > 1 else ""
        face.wrap(f"{one['at'][11:19]} {who}: {one['why']}{times}; {one['next']}", "  ", "    ")


_SIDES = {
    "coordinator": "the coordinator",
    "site": "a site",
    "asked": "no site yet",
    "left": "a site that has left",
}


def _coordinator(face: Face, found: Mapping[str, Any]) -> None:
    face.table(
        ("site", "state", "seen", "round", "records", "time", "last"),
        [
            (
                one["site"][:16],
                "online" if one["online"] else "away" if one["state"] == "in" else one["state"],
                one["seen"][11:19] if one["seen"] else "-",
                one["round"] or "-",
                one["records"] if one["records"] is not None else "-",
                f"{one['seconds']:.1f} s" if one["seconds"] is not None else "-",
                (one["last"] or "-")[:28],
            )
            for one in found["sites"]
        ],
        "No sites yet. Take them in: cloister federate approve REQUEST",
    )
    if found["rounds"]:
        face.table(
            ("round", "sites", "records", "loss before", "time", "not in it"),
            [
                (
                    one["round"],
                    len(one["sites"]),
                    one["records"],
                    f"{one['loss']:.4f}" if one["loss"] is not None else "-",
                    f"{one['seconds']:.1f} s" if one["seconds"] is not None else "-",
                    ", ".join(f"{site}: {no['code']}" for site, no in one["refused"].items())[:34] or "-",
                )
                for one in found["rounds"][-_SHOWN:]
            ],
            "",
        )
    if found["round"] is not None:
        now = found["round"]
        waiting = ", ".join(now["waiting_for"]) or "nobody"
        face.wrap(
            f"round {now['round']} {now['step']}; it waits for {waiting} until {now['deadline'][11:19]} UTC",
            "",
            "  ",
        )


def _site(face: Face, found: Mapping[str, Any]) -> None:
    face.say(
        f"  {found['site']}, seat {found['seat']}" + (f", left {found['left']}" if found["left"] else "")
    )
    policy(face, found["policy"])
    if found["policy"]["paused"]:
        face.say(f"PAUSED: it answers no round until: cloister federate resume {found['name']}")
    if found["policy"]["model_vetoed"]:
        face.say("VETOED: it answers no round of this model.")
    if found["policy"]["vetoed"]:
        face.say(f"vetoed rounds: {', '.join(map(str, found['policy']['vetoed']))}")
    spent = found["epsilon"]
    face.say(
        f"epsilon {spent['spent']:.2f} of {spent['limit']:g} spent of {spent['dataset']}"
        f" ({spent['steps_here']} steps of this job)"
    )
    if found["processes"]:
        face.say("link: " + ", ".join(f"{name} {state}" for name, state in found["processes"].items()))
    face.table(
        ("at", "round", "answer", "bytes"),
        [
            (one["at"][11:19], one["round"], (one["why"] or "sent")[:50], f"{one['bytes']:,}")
            for one in found["answers"][-_SHOWN:]
        ],
        "No round was asked of this site yet.",
    )


def event_line(event: Mapping[str, Any]) -> str | None:
    """An event of a federation's job in one line; None for what nobody needs to see."""
    from federated.words import why

    what = event["what"]
    if what == "round" and "answer" in event:
        said = "sent" if event["answer"] == "sent" else f"not answered: {why(event['answer'])[0]}"
        return f"round {event['round']}: {said}" + (f", {event['bytes']:,} bytes" if event["bytes"] else "")
    if what == "round":
        told = {
            "open": f"asked {len(event.get('cohort', ()))} sites",
            "asked again": f"asked again, {len(event.get('cohort', ()))} sites",
            "stuck": "too few sites answered",
            "skipped": "given up: the sum could not be opened, the adapter stays",
            "done": f"done with {len(event.get('weights', ()))} sites",
        }
        lost = ", ".join(f"{site}: {why(code)[0]}" for site, code in event.get("refused", {}).items())
        return f"round {event['round']}: {told.get(event['state'], event['state'])}" + (
            f"; without {lost}" if lost else ""
        )
    if what == "sites":
        come = f"here: {', '.join(event['come'])}" if event["come"] else ""
        gone = f"gone: {', '.join(event['gone'])}" if event["gone"] else ""
        return "; ".join(filter(None, (come, gone))) or None
    if what == "ended":
        unheard = ", ".join(event.get("unheard", ()))
        return "the federation has ended" + (f"; not told yet: {unheard}" if unheard else "")
    if what == "update":
        return f"round {event['round']}: {event['site']} sent {event['bytes']:,} bytes"
    if what in ("refused", "refusal", "late"):
        cause, step = why(str(event.get("reason", "late")))
        return f"refused {event.get('site') or event.get('place') or ''}: {cause}; {step}".replace(" :", ":")
    if what == "process" and event["state"] != "started":
        return f"{event['name']} {event['state']}"
    return None
