"""The course of one round at the coordinator, without clock, link or disk: what arrived, and what to do now.

A round asks a cohort, takes what the gate admits, and closes when everybody has answered, or at the deadline
if there is a quorum. Without a quorum it is asked again then, with whoever is there; nothing that a site has
sent is asked for twice. Every state can be written as JSON, and going on from it gives the same adapter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

Step = Literal["wait", "aggregate", "ask-again", "give-up"]
MOST_ASKED = 5
LOST = "flower-"
"""How the codes begin of an answer that the link lost."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round: `admitted` maps a site to the digest of its update's body, `refused` to a code.

    `opened` and `deadline` are seconds on the coordinator's clock, `asked` how often sites were asked.
    """

    number: int
    parent: str
    cohort: tuple[str, ...]
    opened: float
    deadline: float
    asked: int = 1
    admitted: dict[str, str]
    refused: dict[str, str]

    @property
    def open(self) -> tuple[str, ...]:
        """The sites that have not answered."""
        return tuple(site for site in self.cohort if site not in self.admitted and site not in self.refused)


def opened_round(number: int, parent: str, cohort: Iterable[str], *, now: float, seconds: float) -> Round:
    """A round that begins."""
    return Round(
        number=number,
        parent=parent,
        cohort=tuple(sorted(cohort)),
        opened=now,
        deadline=now + seconds,
        admitted={},
        refused={},
    )


def with_update(state: Round, site: str, body: str) -> Round:
    """After an admitted update. One that was already there, or that nobody asked for, changes nothing."""
    if site not in state.cohort or site in state.admitted:
        return state
    return replace(state, admitted=state.admitted | {site: body}, refused=_without(state.refused, site))


def with_refusal(state: Round, site: str, code: str) -> Round:
    """After the site's own no, or an update of its own that the gate refused; an admitted one stays."""
    if site not in state.cohort or site in state.admitted:
        return state
    return replace(state, refused=state.refused | {site: code})


def with_return(state: Round, sites: Iterable[str]) -> Round:
    """After sites came back: what the link lost of them they may still send."""
    lost = {site for site in sites if state.refused.get(site, "").startswith(LOST)}
    return replace(state, refused={site: code for site, code in state.refused.items() if site not in lost})


def next_step(state: Round, *, now: float, quorum: int) -> Step:
    """What to do with the round now."""
    enough = len(state.admitted) >= quorum
    if enough and (not state.open or now >= state.deadline):
        return "aggregate"
    if now < state.deadline:
        return "wait"
    return "ask-again" if state.asked < MOST_ASKED else "give-up"


def asked_again(state: Round, there: Iterable[str], *, now: float, seconds: float) -> Round:
    """The same round put to `there`, sites that may answer now; what is admitted stays admitted."""
    cohort = tuple(sorted({*state.admitted, *there}))
    return replace(state, cohort=cohort, deadline=now + seconds, asked=state.asked + 1, refused={})


def begun_anew(
    state: Round, there: Iterable[str], *, now: float, seconds: float, counted: bool = True
) -> Round:
    """The same round from its beginning: nothing that was admitted stays. `counted` as one more asking."""
    return replace(
        state,
        cohort=tuple(sorted(there)),
        deadline=now + seconds,
        asked=state.asked + counted,
        admitted={},
        refused={},
    )


def as_json(state: Round) -> dict[str, Any]:
    """For a checkpoint."""
    return vars(state) | {"cohort": list(state.cohort)}


def round_of(held: dict[str, Any]) -> Round:
    """What `as_json` wrote."""
    return Round(**(held | {"cohort": tuple(held["cohort"])}))


def _without(held: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in held.items() if key != name}
