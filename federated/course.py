"""The coordinator's side of the rounds, on a folder: begin, receive, close; goes on where it was killed.

It knows no link: Flower's messages, carried bundles and simulated sites all call these functions. Time is an
argument. Nothing here trusts what arrives before the gate (admit.py) has passed it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from appliance.core.errors import ConfigWrong
from federated import checkpoint, rounds
from federated.admit import Admitted, Expected, Member, Refused, admit
from federated.aggregate import Packed, average, weights
from federated.checkpoint import Record, State
from federated.description import Federation
from federated.layout import Array, Layout, vector_sha256
from federated.packing import unpack, with_feedback
from federated.products import Matrix, mean_product
from federated.rounds import Round
from federated.server_step import Moments, fedadam, fedavg
from federated.update import MASKED, Statement


@dataclass(frozen=True, kw_only=True)
class Course:
    """A federation at its coordinator: `digest` names the signed description, `sign` is the site key's."""

    home: Path
    federation: Federation
    digest: str
    layout: Layout
    start: Array
    sign: Callable[[bytes], bytes]

    def last(self) -> tuple[int, State]:
        """(number of the last committed round, the state after it); (0, ...) before the first.

        Raises:
            DataRejected: what is stored was altered.
        """
        record = checkpoint.committed(self.home, self.federation.coordinator_key)
        if record is None:
            return 0, checkpoint.start(self.layout, self.start)
        return record.round, checkpoint.read_state(self.home, self.layout, record)

    def expected(self, state: Round) -> Expected:
        """What an update of a round must be about."""
        return Expected(
            federation=self.digest,
            round=state.number,
            parent=state.parent,
            packing=MASKED if self.federation.rounds.secure else self.federation.rounds.packing,
            layout=self.layout,
            bound=self.federation.rounds.clip_bound,
        )

    @cached_property  # asked for with every update
    def members(self) -> dict[str, Member]:
        """All sites that ever were in it."""
        return {
            site.name: Member(key=bytes.fromhex(site.key), units=site.units, active=site.state == "in")
            for site in self.federation.sites
        }


def begin(course: Course, there: Iterable[str], *, now: float) -> Round:
    """The round that runs, or else a new one with the sites that are `there`.

    Raises:
        ConfigWrong: fewer than the quorum are there, or all rounds are done.
    """
    number, state = course.last()
    if running := checkpoint.kept_round(course.home, number + 1):
        return running
    settings = course.federation.rounds
    if number >= settings.count:
        raise ConfigWrong(f"All {settings.count} rounds are done.", "Evaluate the adapter.")
    asked = _active(course, there)
    if len(asked) < settings.quorum:
        raise ConfigWrong(
            f"{len(asked)} sites are there; a round needs {settings.quorum}.",
            "Wait for more sites to connect.",
        )
    made = rounds.opened_round(
        number + 1,
        vector_sha256(course.layout, state.adapter),
        asked,
        now=now,
        seconds=60 * settings.deadline_minutes,
    )
    checkpoint.keep_round(course.home, made)
    return made


def receive(course: Course, state: Round, content: bytes) -> tuple[Round, Admitted | Refused]:
    """Take one update: stored before it is said to be admitted. What a site really sent and was wrong counts
    as its answer; what somebody else may have sent in its name does not."""
    return judged(
        course, state, content, admit(content, course.expected(state), course.members, state.admitted)
    )


def judged(
    course: Course, state: Round, content: bytes, found: Admitted | Refused
) -> tuple[Round, Admitted | Refused]:
    """The round after what a gate found of one update."""
    if isinstance(found, Admitted):
        site = found.statement.site
        if site in state.cohort and site not in state.admitted:
            checkpoint.keep_update(course.home, state.number, site, content)
        after = rounds.with_update(state, site, found.statement.body)
    elif found.proven and found.code not in ("round", "second"):
        after = rounds.with_refusal(state, found.site, found.code)
    else:
        return state, found
    if after != state:
        checkpoint.keep_round(course.home, after)
    return after, found


def objected(course: Course, state: Round, site: str, reason: str) -> Round:
    """A site's own no."""
    after = rounds.with_refusal(state, site, reason)
    if after != state:
        checkpoint.keep_round(course.home, after)
    return after


def returned(course: Course, state: Round, sites: Iterable[str]) -> Round:
    """Sites are back that the link had lost: they may still answer."""
    after = rounds.with_return(state, sites)
    if after != state:
        checkpoint.keep_round(course.home, after)
    return after


def ask_again(course: Course, state: Round, there: Iterable[str], *, now: float) -> Round:
    """Put the round to the sites that are there now."""
    seconds = 60 * course.federation.rounds.deadline_minutes
    after = rounds.asked_again(state, _active(course, there), now=now, seconds=seconds)
    checkpoint.keep_round(course.home, after)
    return after


def close(course: Course, state: Round) -> Record:
    """Average what was admitted and commit the round.

    Raises:
        ConfigWrong: there is no quorum.
    """
    settings, layout = course.federation.rounds, course.layout
    if len(state.admitted) < settings.quorum:
        raise ConfigWrong(
            f"{len(state.admitted)} updates were admitted; {settings.quorum} are needed.",
            "Wait for more sites.",
        )
    (_, before), said = course.last(), _statements(course, state)
    counted = weights({site: one.units for site, one in said.items()}, settings.weight_clamp)
    updates = [
        checkpoint.kept_update(course.home, state.number, site, weight, settings.packing)
        for site, weight in sorted(counted.items())
    ]
    if settings.products:
        wanted, lost = _products(layout, before.adapter, updates)
        return _committed(
            course, state, before, wanted, before.moments, counted, said, rule="products", lost=lost
        )
    change = average(settings.rule, updates, layout.values, trim=settings.trim)
    return _stepped(course, state, before, change, counted, said, rule=settings.rule)


def close_secure(course: Course, state: Round, counted: dict[str, int], change: Array) -> Record:
    """Commit a round whose sum was opened: `change` is the mean, each site counted for its units."""
    return _stepped(
        course, state, course.last()[1], change, counted, _statements(course, state), rule="secure mean"
    )


def skip(course: Course, state: Round, reasons: dict[str, str]) -> Record:
    """Commit a round that cannot be finished, without a change; `reasons` say why of each site."""
    _, before = course.last()
    after = replace(state, admitted={}, refused=state.refused | reasons)
    return _committed(course, after, before, before.adapter, before.moments, {}, {}, rule="skipped")


def _statements(course: Course, state: Round) -> dict[str, Statement]:
    return {site: checkpoint.statement_of(course.home, state.number, site) for site in state.admitted}


def _stepped(
    course: Course,
    state: Round,
    before: State,
    change: Array,
    counted: dict[str, int],
    said: dict[str, Statement],
    *,
    rule: str,
) -> Record:
    settings, moments = course.federation.rounds, before.moments
    if settings.server == "fedadam":
        wanted, moments = fedadam(before.adapter, change, moments, settings.server_learning_rate)
    else:
        wanted = fedavg(before.adapter, change, settings.server_learning_rate)
    return _committed(course, state, before, wanted, moments, counted, said, rule=rule)


def _committed(
    course: Course,
    state: Round,
    before: State,
    wanted: Array,
    moments: Moments,
    counted: dict[str, int],
    said: dict[str, Statement],
    *,
    rule: str,
    lost: float = 0.0,
) -> Record:
    settings, layout = course.federation.rounds, course.layout
    content, left = with_feedback(wanted - before.adapter, before.left, settings.packing, math.inf)
    after = State(
        adapter=before.adapter + unpack(content, layout.values, settings.packing), left=left, moments=moments
    )
    record = Record(
        round=state.number,
        federation=course.digest,
        parent=state.parent,
        adapter=vector_sha256(layout, after.adapter),
        change=hashlib.sha256(content).hexdigest(),
        state=checkpoint.state_sha256(after),
        rule=rule,
        weights=counted,
        updates=dict(state.admitted),
        refused=dict(state.refused) | dict.fromkeys(state.open, "late"),
        losses={site: one.loss for site, one in said.items()},
        lost=round(1e6 * lost),
    )
    checkpoint.commit(course.home, layout, after, content, record, course.sign)
    return record


def _active(course: Course, there: Iterable[str]) -> list[str]:
    return sorted({site.name for site in course.federation.active()} & set(there))


def _products(layout: Layout, adapter: Array, updates: list[Packed]) -> tuple[Array, float]:
    """The adapter whose products are the mean of the sites' products; the largest share that was lost."""
    places = {name: (shape, first, last) for name, shape, first, last in layout.pieces()}
    whole = sum(one.weight for one in updates)
    wanted, lost = adapter.copy(), 0.0
    for name, (shape, first, last) in places.items():
        if ".lora_A" not in name:
            continue
        other, b_first, b_last = places[name.replace(".lora_A", ".lora_B")]

        def pairs(
            a_at: tuple[int, int] = (first, last),
            b_at: tuple[int, int] = (b_first, b_last),
            shapes: tuple[tuple[int, ...], tuple[int, ...]] = (shape, other),
        ) -> Iterator[tuple[float, Matrix, Matrix]]:
            for one in updates:
                b = _matrix(adapter, one, *b_at, shapes[1])
                yield one.weight / whole, b, _matrix(adapter, one, *a_at, shapes[0])

        b, a, gone = mean_product(pairs)
        wanted[first:last], wanted[b_first:b_last] = a.reshape(-1), b.reshape(-1)
        lost = max(lost, gone)
    return wanted, lost


def _matrix(adapter: Array, one: Packed, first: int, last: int, shape: tuple[int, ...]) -> Matrix:
    aligned = first // 128 * 128
    change = one.read(aligned, last)[first - aligned :]
    return (adapter[first:last] + change).reshape(shape).astype(np.float64)
