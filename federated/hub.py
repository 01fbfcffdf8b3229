"""The coordinator at work: runs the course of all rounds over its link.

The link is a process with the network (flower/hub_link.py); this one has the site key, the rounds and no
network. Killed at any moment, it goes on from the folder when it is started again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from federated import checkpoint, course, messages
from federated.admit import Admitted
from federated.course import Course
from federated.flower.frames import Ends, Frame
from federated.rounds import Round, next_step

_LOOK = 0.2


@dataclass
class _Hub:
    course: Course
    line: Ends
    told: Callable[..., None]
    agreement: bytes
    signature: bytes
    there: set[str] = field(default_factory=set)
    sent: set[tuple[int, int, str]] = field(default_factory=set)


def run(
    held: Course,
    line: Ends,
    told: Callable[..., None],
    *,
    agreement: bytes,
    signature: bytes,
    clock: Callable[[], float],
    over: Callable[[], bool],
) -> int:
    """Run rounds until all are done, `over` says so, or the link ends; returns the last committed round."""
    hub = _Hub(course=held, line=line, told=told, agreement=agreement, signature=signature)
    settings = held.federation.rounds
    while not over():
        number, _ = held.last()
        if number >= settings.count:
            break
        active = {site.name for site in held.federation.active()}
        state = checkpoint.kept_round(held.home, number + 1)
        if state is None and len(hub.there & active) >= settings.quorum:
            state = course.begin(held, hub.there, now=clock())
            told("round", round=state.number, state="open", cohort=list(state.cohort))
        if state is not None and not _advance(hub, state, clock):
            break
        try:
            frame = line.receive(_LOOK)
        except TimeoutError:
            continue
        if frame is None:
            break
        _take(hub, frame, number + 1)
    return held.last()[0]


def _advance(hub: _Hub, state: Round, clock: Callable[[], float]) -> bool:
    """Ask who has not been asked, close what can be closed; False when the rounds cannot go on."""
    settings = hub.course.federation.rounds
    step = next_step(state, now=clock(), quorum=settings.quorum)
    if step == "aggregate":
        record = course.close(hub.course, state)
        hub.told("round", round=record.round, state="done", weights=record.weights, refused=record.refused)
        return True
    if step == "give-up":
        hub.told("round", round=state.number, state="stuck", admitted=sorted(state.admitted))
        return False
    if step == "ask-again":
        state = course.ask_again(hub.course, state, hub.there, now=clock())
        hub.told("round", round=state.number, state="asked again", cohort=list(state.cohort))
    new = [
        site for site in state.open if site in hub.there and (state.number, state.asked, site) not in hub.sent
    ]
    for sites, whole in ((set(new) - hub.line.carried, False), (set(new) & hub.line.carried, True)):
        if sites:
            _ask(hub, state, sorted(sites), whole=whole)
    return True


def _ask(hub: _Hub, state: Round, sites: list[str], *, whole: bool) -> None:
    head, body = messages.asked(hub.course, state, hub.agreement, hub.signature, whole=whole)
    said = {key: value.hex() if isinstance(value, bytes) else value for key, value in head.items()}
    hub.line.send("ask", body, ref=state.number, sites=sites, head=said)
    hub.sent |= {(state.number, state.asked, site) for site in sites}


def _take(hub: _Hub, frame: Frame, number: int) -> None:
    if frame.what == "there":
        gone, come = hub.there - set(frame.head["sites"]), set(frame.head["sites"]) - hub.there
        hub.there = set(frame.head["sites"])
        # Who comes back may have lost what it was asked.
        hub.sent = {one for one in hub.sent if one[2] not in come}
        hub.told("sites", there=sorted(hub.there), gone=sorted(gone), come=sorted(come))
        return
    state = checkpoint.kept_round(hub.course.home, number)
    if frame.what != "answer" or state is None:
        hub.told(frame.what, **{key: value for key, value in frame.head.items() if key != "what"})
        return
    site, reason = str(frame.head["site"]), str(frame.head.get("reason", ""))
    if frame.head.get("ref") != number:
        hub.told("late", site=site, round=frame.head.get("ref"))
    elif reason == messages.BEHIND:
        _ask(hub, state, [site], whole=True)
    elif reason:
        course.objected(hub.course, state, site, reason)
        hub.told("refusal", site=site, round=number, reason=reason)
    else:
        _, found = course.receive(hub.course, state, frame.body)
        if isinstance(found, Admitted):
            hub.told("update", site=site, round=number, norm=found.norm, bytes=len(frame.body))
        else:
            hub.told("refused", site=site, round=number, reason=found.code)
