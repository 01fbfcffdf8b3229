"""The coordinator at work: runs the course of all rounds over its link.

The link is a process with the network (flower/hub_link.py); this one has the site key, the rounds and no
network. Killed at any moment, it goes on from the folder when it is started again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from federated import checkpoint, course, description, farewell, messages
from federated.admit import Admitted
from federated.course import Course
from federated.description import Federation
from federated.flower.frames import Ends, Frame
from federated.rounds import Round, next_step
from federated.secure import hub as secure

_LOOK, _SOON = 0.2, 0.01
OUT = "out"
"""Why a round waits no longer for a site that was dropped while it ran."""


@dataclass
class _Hub:
    course: Course
    line: Ends
    told: Callable[..., None]
    agreement: bytes
    signature: bytes
    newest: Callable[[], tuple[bytes, bytes] | None]
    later: tuple[Federation, bytes, bytes] | None = None
    there: set[str] = field(default_factory=set)
    sent: set[tuple[int, int, str]] = field(default_factory=set)
    secure: secure.Work = field(default_factory=secure.Work)

    @property
    def out(self) -> set[str]:
        """The sites that the newest version has no more, while a round runs by the one before."""
        if self.later is None:
            return set()
        federation = self.later[0]
        return {site.name for site in federation.sites} - {site.name for site in federation.active()}


def run(
    held: Course,
    line: Ends,
    told: Callable[..., None],
    *,
    agreement: bytes,
    signature: bytes,
    clock: Callable[[], float],
    over: Callable[[], bool],
    newest: Callable[[], tuple[bytes, bytes] | None] = lambda: None,
    closed: Callable[[], tuple[bytes, bytes]] | None = None,
) -> int:
    """Run rounds until all are done, `over` says so, or the link ends; returns the last committed round.

    `newest` gives file and signature of a version of the agreement that was made since it last did: the next
    round goes by it, and the round that runs waits for no site that is out. One that has ended ends the
    rounds, and the round that runs is left. `closed` makes the last version when all rounds are done; sites
    are told of either.
    """
    hub = _Hub(course=held, line=line, told=told, agreement=agreement, signature=signature, newest=newest)
    settings, key = held.federation.rounds, held.federation.coordinator_key
    number, _ = held.last()
    while not over() and number < settings.count and not hub.course.federation.ended:
        state = _follow(hub, checkpoint.kept_round(held.home, number + 1))
        if hub.course.federation.ended:
            break
        active = {site.name for site in hub.course.federation.active()}
        if state is None and len(hub.there & active) >= settings.quorum:
            state = course.begin(hub.course, hub.there, now=clock())
            told("round", round=state.number, state="open", cohort=list(state.cohort))
        if state is not None and not _advance(hub, state, clock):
            break
        wait = _LOOK
        if checkpoint.read_record(held.home, number + 1, key) is not None:
            number, wait = number + 1, _SOON
        try:
            frame = line.receive(wait)
        except TimeoutError:
            continue
        if frame is None:
            break
        _take(hub, frame, number + 1)
    if number >= settings.count and closed is not None:
        _go_by(hub, *closed())
    if hub.course.federation.ended:
        farewell.tell(hub, number, clock, over)
    return number


def _follow(hub: _Hub, state: Round | None) -> Round | None:
    """Go by the newest version of the agreement; the round as it is then."""
    if found := hub.newest():
        file, signature = found
        federation = description.opened(file, signature, hub.course.federation.coordinator_key)
        if federation.version > hub.course.federation.version:
            hub.later = (federation, file, signature)
    if hub.later is None:
        return state
    federation, file, signature = hub.later
    if state is None or federation.ended:
        _go_by(hub, file, signature)
        hub.line.send("register")
        hub.told("agreement", version=federation.version, sites=len(federation.active()))
        return None
    for site in set(state.open) & hub.out:
        state = course.objected(hub.course, state, site, OUT)
        hub.told("refusal", site=site, round=state.number, reason=OUT)
    return state


def _go_by(hub: _Hub, file: bytes, signature: bytes) -> None:
    federation = description.opened(file, signature, hub.course.federation.coordinator_key)
    hub.course = replace(hub.course, federation=federation, digest=description.digest(file))
    hub.agreement, hub.signature, hub.later = file, signature, None


def _advance(hub: _Hub, state: Round, clock: Callable[[], float]) -> bool:
    """Ask who has not been asked, close what can be closed; False when the rounds cannot go on."""
    settings = hub.course.federation.rounds
    if settings.secure:
        return secure.advance(hub, state, clock())
    step = next_step(state, now=clock(), quorum=settings.quorum)
    if step == "aggregate":
        record = course.close(hub.course, state)
        hub.told("round", round=record.round, state="done", weights=record.weights, refused=record.refused)
        return True
    if step == "give-up":
        hub.told("round", round=state.number, state="stuck", admitted=sorted(state.admitted))
        return False
    if step == "ask-again":
        state = course.ask_again(hub.course, state, hub.there - hub.out, now=clock())
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
    state = checkpoint.kept_round(hub.course.home, number)
    if frame.what == "there":
        gone, come = hub.there - set(frame.head["sites"]), set(frame.head["sites"]) - hub.there
        hub.there = set(frame.head["sites"])
        # Who comes back may have lost what it was asked.
        hub.sent = {one for one in hub.sent if one[2] not in come}
        hub.told("sites", there=sorted(hub.there), gone=sorted(gone), come=sorted(come))
        if state is not None:
            course.returned(hub.course, state, come)
        return
    if frame.what != "answer" or state is None:
        hub.told(frame.what, **{key: value for key, value in frame.head.items() if key != "what"})
        return
    site, reason = str(frame.head["site"]), str(frame.head.get("reason", ""))
    if site in hub.out:
        hub.told("refused", site=site, round=number, reason=OUT)
    elif hub.course.federation.rounds.secure:
        secure.take(hub, state, frame)
    elif frame.head.get("ref") != number:
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
