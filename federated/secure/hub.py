"""The coordinator at work in secure rounds: what hub.py does in plain ones, in steps.

An attempt whose survivors are not fixed is begun anew by a coordinator that was started again: with another
number, fresh keys and fresh masks. With each question to open, sites are sent the plan of the next attempt,
so that a round is two messages when the same sites stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from appliance.core.errors import ConfigWrong
from federated import course as plain
from federated import messages
from federated.admit import Admitted
from federated.flower.frames import Frame
from federated.rounds import LOST, MOST_ASKED, Round, next_step
from federated.secagg.coordinator import Gathered
from federated.secagg.federation import Plan
from federated.secagg.refused import Refused
from federated.secure import attempt as attempts
from federated.secure import course, wire
from federated.secure.attempt import Attempt

if TYPE_CHECKING:
    from federated.hub import _Hub as Hub

_QUICK = 60.0  # seconds for a step in which nobody trains
_STEP = {wire.KEYS: 0, wire.TRAIN: 1, wire.OPEN: 2}


@dataclass
class Work:
    """What a running coordinator remembers: the attempt it began itself, keys for the next one (`ahead`),
    who does not open just now, and who dealt wrong shares and is asked no more."""

    live: int = 0
    ahead: tuple[str, Plan, dict[str, bytes]] | None = None
    sums: Gathered | None = None
    closed: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)


def advance(hub: Hub, state: Round, now: float) -> bool:
    """Ask, fix and close what can be; False when the rounds cannot go on."""
    one = attempts.kept(hub.course.home, state.number)
    if one is None or not (one.survivors or one.number == hub.secure.live):
        return _anew(hub, state, now, again=one is not None)
    hub.secure.live = one.number
    if not one.cohort:
        return _keys(hub, state, one, now)
    if not one.survivors:
        return _vectors(hub, state, one, now)
    return _open(hub, state, one, now)


def take(hub: Hub, state: Round, frame: Frame) -> None:
    """One answer of a site, whatever step it belongs to."""
    one = attempts.kept(hub.course.home, state.number)
    site, reason = str(frame.head["site"]), str(frame.head.get("reason", ""))
    if one is None or frame.head.get("ref") != one.number or one.number != hub.secure.live:
        hub.told("late", site=site, round=state.number)
    elif frame.body and course.has(hub.course, state.number, site, frame.body):
        return  # it was asked twice, and answered both times alike
    elif reason == messages.BEHIND:
        _ask_to_train(hub, state, one, [site], whole=True)
    elif reason.startswith(LOST):
        hub.told("refusal", site=site, round=state.number, reason=reason)  # it is asked when it is back
    elif reason and one.survivors:
        hub.secure.closed.add(site)
        hub.told("refusal", site=site, round=state.number, reason=reason)
    elif reason:
        plain.objected(hub.course, state, site, reason)
        hub.told("refusal", site=site, round=state.number, reason=reason)
    elif not one.cohort:
        _told(hub, state, site, course.take_keys(hub.course, state.number, one.plan, site, frame.body))
    elif not one.survivors:
        _take_vector(hub, state, one, site, frame.body)
    else:
        _take_reveal(hub, state, one, site, frame.body)


def _take_vector(hub: Hub, state: Round, one: Attempt, site: str, content: bytes) -> None:
    _, found = course.receive(hub.course, state, one, content)
    if isinstance(found, Admitted):
        hub.told("update", site=site, round=state.number, bytes=len(content))
    else:
        hub.told("refused", site=site, round=state.number, reason=found.code)


def _take_reveal(hub: Hub, state: Round, one: Attempt, site: str, body: bytes) -> None:
    try:
        said, keys = wire.parted(body)
    except ValueError:
        said, keys = b"", b""
    if site not in one.survivors or not course.take_reveal(hub.course, state.number, site, said):
        hub.told("refused", site=site, round=state.number, reason="masks")
    elif keys and hub.secure.ahead:
        hub.secure.ahead[2][site] = keys  # held against the plan when its attempt begins


def _anew(hub: Hub, state: Round, now: float, *, again: bool = True, counted: bool = False) -> bool:
    """The next attempt, if enough sites are there. What is `counted` is given up after so many."""
    there, late = _there(hub), now >= state.deadline
    if late and state.asked >= MOST_ASKED and again:
        hub.told("round", round=state.number, state="stuck", admitted=[])
        return False
    keys: dict[str, bytes] = {}
    ahead, hub.secure.ahead, hub.secure.sums = hub.secure.ahead, None, None
    if ahead and ahead[0] == hub.course.digest and set(ahead[1].roster) == there:
        _, planned, keys = ahead
    elif (found := _planned(hub, there, now)) is None:
        if late:
            course.later(hub.course, state, now=now)
        return True
    else:
        planned = found
    hub.secure.closed.clear()
    state, one = course.begin(hub.course, state, planned, now=now, patience=_QUICK, counted=counted)
    hub.secure.live = one.number
    for site, content in keys.items():
        course.take_keys(hub.course, state.number, planned, site, content)
    if again:
        hub.told("round", round=state.number, state="asked again", cohort=list(one.roster))
    return _keys(hub, state, one, now)


def _there(hub: Hub) -> set[str]:
    active = {site.name for site in hub.course.federation.active()}
    return (hub.there & active) - hub.out - hub.secure.wrong


def _planned(hub: Hub, there: set[str], now: float) -> Plan | None:
    """A plan, if so many sites are enough."""
    if len(there) < hub.course.federation.rounds.quorum:
        return None
    try:
        return course.plan(hub.course, there, now=now)
    except (Refused, ConfigWrong):
        return None


def _keys(hub: Hub, state: Round, one: Attempt, now: float) -> bool:
    have = attempts.sites(hub.course.home, state.number, "keys") - set(state.refused)
    waiting = [site for site in one.roster if site not in have and site not in state.refused]
    enough = len(have) >= max(hub.course.federation.rounds.quorum, one.threshold)
    if enough and (not waiting or now >= one.deadline):
        state, one = course.ask(hub.course, state, one, now=now)
        return _vectors(hub, state, one, now)
    if now >= state.deadline:
        return _anew(hub, state, now, counted=True)
    if not hub.there & set(waiting) and _there(hub) - set(one.roster):
        return _anew(hub, state, now)
    body = wire.plan_message(course.member(hub.course), one.plan)
    _ask(hub, state, one, wire.KEYS, waiting, lambda site: body)
    return True


def _vectors(hub: Hub, state: Round, one: Attempt, now: float) -> bool:
    step = next_step(state, now=now, quorum=max(hub.course.federation.rounds.quorum, one.threshold))
    if step == "wait":
        _ask_to_train(hub, state, one, list(state.open), whole=False)
        return True
    if step != "aggregate":
        return _anew(hub, state, now, counted=True)
    one = course.fix(hub.course, state, one, state.admitted, until=now + _patience(hub))
    return _open(hub, state, one, now)


def _open(hub: Hub, state: Round, one: Attempt, now: float) -> bool:
    """Have the sum opened, as soon as all have answered, or enough when time is up."""
    if hub.secure.sums is None:
        hub.secure.sums = course.gathered(hub.course, state, one)
    have = attempts.sites(hub.course.home, state.number, "reveals")
    waiting = set(one.survivors) - have - hub.out
    late = now >= one.deadline or one.tries > 1
    if len(have) >= one.threshold and (late or not waiting - hub.secure.closed):
        try:
            record, wrong = course.close(hub.course, state, one, hub.secure.sums)
        except Refused as no:
            if no.site and no.reason == "dealt-wrong":
                hub.secure.wrong.add(no.site)
                return _skip(hub, state, one, {no.site: no.reason})
        else:
            hub.secure.sums = None
            for site in wrong:
                hub.told("refused", site=site, round=state.number, reason="shares")
            hub.told(
                "round", round=record.round, state="done", weights=record.weights, refused=record.refused
            )
            return True
    if len(have | waiting) < one.threshold:
        return _skip(hub, state, one, {})
    if now >= one.deadline:
        if one.tries >= MOST_ASKED:
            return _skip(hub, state, one, {})
        seconds = 60 * hub.course.federation.rounds.deadline_minutes
        one = replace(one, deadline=now + seconds, tries=one.tries + 1)
        attempts.keep(hub.course.home, state.number, one)
        hub.secure.closed.clear()
        hub.sent = {sent for sent in hub.sent if sent[0] != one.number}
    _ask_to_open(hub, state, one, hub.secure.sums, sorted(waiting), now)
    return True


def _ask_to_open(hub: Hub, state: Round, one: Attempt, sums: Gathered, sites: list[str], now: float) -> None:
    if hub.secure.ahead is None and state.number < hub.course.federation.rounds.count:
        planned = _planned(hub, _there(hub), now)
        hub.secure.ahead = (hub.course.digest, planned, {}) if planned else None
    ahead = hub.secure.ahead[1] if hub.secure.ahead else None
    _ask(hub, state, one, wire.OPEN, sites, lambda site: course.question(
        hub.course, state, one, sums, ahead, site
    ))  # fmt: skip


def _skip(hub: Hub, state: Round, one: Attempt, wrong: dict[str, str]) -> bool:
    record = course.skip(hub.course, state, one, wrong)
    hub.secure.sums = None
    hub.told("round", round=record.round, state="skipped", weights={}, refused=record.refused)
    return True


def _patience(hub: Hub) -> float:
    return min(_QUICK, 60 * hub.course.federation.rounds.deadline_minutes)


def _ask_to_train(hub: Hub, state: Round, one: Attempt, sites: list[str], *, whole: bool) -> None:
    sites = sites if whole else _unasked(hub, one, wire.TRAIN, sites)
    if not sites:
        return
    head, body = messages.asked(hub.course, state, hub.agreement, hub.signature, whole=whole)
    offers = course.offers(hub.course, state, one)
    bodies = {site: wire.joined(course.request(hub.course, state, one, site, offers), body) for site in sites}
    _send(hub, state, one, wire.TRAIN, bodies, head)


def _ask(
    hub: Hub, state: Round, one: Attempt, step: str, sites: list[str], body: Callable[[str], bytes]
) -> None:
    head = {"agreement": hub.agreement, "signature": hub.signature, "round": state.number}
    _send(hub, state, one, step, {site: body(site) for site in _unasked(hub, one, step, sites)}, head)


def _unasked(hub: Hub, one: Attempt, step: str, sites: list[str]) -> list[str]:
    return [site for site in sites if site in hub.there and (one.number, _STEP[step], site) not in hub.sent]


def _send(
    hub: Hub, state: Round, one: Attempt, step: str, bodies: dict[str, bytes], head: dict[str, Any]
) -> None:
    said = {key: value.hex() if isinstance(value, bytes) else value for key, value in head.items()}
    said |= {"step": step, "attempt": one.number}
    for site, body in bodies.items():
        hub.line.send("ask", body, ref=one.number, sites=[site], head=said)
        hub.sent.add((one.number, _STEP[step], site))


def _told(hub: Hub, state: Round, site: str, good: bool) -> None:
    if not good:
        hub.told("refused", site=site, round=state.number, reason="masks")
