"""Federations with secure rounds in one process: the product's hub and seats, and a link of queues.

The link carries frames as they would cross, and lets a test change, lose or add any of them. Time is a
number that the test moves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from world import LAYOUT, NOW, agreement, key, public, round_key

from federated import checkpoint, description, hub, seat
from federated.course import Course
from federated.description import Federation
from federated.flower.frames import Frame
from federated.layout import Array
from federated.policy import Policy
from federated.seat import Learnt, Seat
from federated.secagg.federation import SiteKeys
from federated.secure import pinned
from federated.secure import seat as secure

Message = dict[str, Any]


def learnt(number: int, round_: int) -> Array:
    """What site `number` learns in a round."""
    drawn = np.random.default_rng([number, round_]).normal(size=LAYOUT.values)
    return (0.1 * drawn).astype(np.float32)


class Stopped(Exception):
    """The coordinator was killed."""


@dataclass
class World:
    """`change(to or from, site, step, body)` gives what crosses instead, None for nothing."""

    folder: Path
    sites: int = 4
    settings: dict[str, Any] = field(default_factory=dict)
    asked: Callable[[str, str, bytes], bytes | None] = lambda site, step, body: body
    answered: Callable[[str, str, bytes | str], bytes | str | None] = lambda site, step, said: said

    def __post_init__(self) -> None:
        rounds = {"count": 2, "secure": True, "packing": "f32"} | self.settings
        self.federation: Federation = agreement(self.sites, **rounds)
        self.file = description.written(self.federation)
        self.signature = key(0).sign(description.PURPOSE + self.file)
        self.names = [site.name for site in self.federation.sites]
        self.trained: list[tuple[str, int]] = []
        self.policies: dict[str, dict[str, Any]] = {name: {} for name in self.names}
        self.changes: dict[str, Callable[[int], Array]] = {}
        self.units = {name: 10 * int(name[1:]) for name in self.names}
        self.seats = {name: self.seat(name) for name in self.names}
        self.told: list[dict[str, Any]] = []
        self.log: list[tuple[str, str, bytes | str]] = []
        self.gone: set[str] = set()
        self.clock = 0.0
        self.newest: tuple[bytes, bytes] | None = None
        self.course = Course(
            home=self.folder / "hub",
            federation=self.federation,
            digest=description.digest(self.file),
            layout=LAYOUT,
            start=np.zeros(LAYOUT.values, dtype=np.float32),
            sign=key(0).sign,
        )
        for one in self.seats.values():
            seat.join(one, self.file, self.signature, public(0))

    def seat(self, name: str) -> Seat:
        """A site's process, as after a start."""
        number = int(name[1:])

        def train(adapter: Array, round_: int) -> Learnt:
            self.trained.append((name, round_))
            change = self.changes.get(name, lambda round_: learnt(number, round_))(round_)
            return Learnt(change=change, units=self.units[name])

        return Seat(
            home=self.folder / name,
            name=name,
            layout=LAYOUT,
            policy=lambda: Policy(**({"dataset": "d", "epsilon": 8.0, "delta": 1e-5} | self.policies[name])),
            unit="patient",
            sign=key(number).sign,
            train=train,
            loss=lambda adapter: 1.0,
            own_versions=lambda federation: None,
            keys=SiteKeys(site=name, sign=key(number), x25519=round_key(number)),
        )

    def answer(self, name: str, head: Message, body: bytes) -> bytes | str:
        """What a site says to a question."""
        return secure.answer(self.seats[name], head, body, now=NOW)

    def run(self, looks: int = 400) -> int:
        """The coordinator until its rounds are done or cannot go on, or so often idle; the last round."""
        line = _Link(world=self, looks=looks)
        return hub.run(
            self.course,
            line,
            lambda what, **facts: self.told.append({"what": what, **facts}),
            agreement=self.file,
            signature=self.signature,
            clock=lambda: self.clock,
            over=lambda: line.looks <= 0,
            newest=self._newest,
        )

    def _newest(self) -> tuple[bytes, bytes] | None:
        found, self.newest = self.newest, None
        return found

    def drop(self, site: str) -> None:
        """The next version of the agreement, without a site."""
        sites = [
            one if one.name != site else one.model_copy(update={"state": "dropped"})
            for one in self.federation.sites
        ]
        made = self.federation.model_copy(update={"sites": sites, "version": self.federation.version + 1})
        file = description.written(made)
        self.newest = (file, key(0).sign(description.PURPOSE + file))

    def record(self, number: int) -> checkpoint.Record | None:
        """A committed round."""
        return checkpoint.read_record(self.course.home, number, public(0))

    def mean(self, number: int, sites: list[str]) -> Array:
        """The plain weighted mean of what sites learnt."""
        weights = [pinned.weight_of(self.federation, self.units[site]) for site in sites]
        changes = [
            self.changes.get(site, lambda round_, site=site: learnt(int(site[1:]), round_))(number)
            for site in sites
        ]
        return np.average(changes, axis=0, weights=weights).astype(np.float32)

    def moved(self, number: int) -> Array:
        """How far the adapter moved in a round."""
        content = (checkpoint.folder_of(self.course.home, number) / "change").read_bytes()
        return np.frombuffer(content, "<f4").astype(np.float32)

    def step(self) -> float:
        """A value's size on the lattice."""
        return 1 / pinned.lattice_of(self.federation, LAYOUT.values).scale

    def refusals(self) -> set[tuple[str, str]]:
        """(site, reason) of all that was refused, on either side."""
        return {(one["site"], one["reason"]) for one in self.told if one["what"] in ("refused", "refusal")}


@dataclass
class _Link:
    """The coordinator's line. When nothing is under way, time goes on by 7 seconds."""

    world: World
    looks: int
    carried: frozenset[str] = frozenset()
    waiting: deque[Frame] = field(default_factory=deque)
    there: list[str] | None = None

    def send(self, what: str, body: bytes = b"", **head: Any) -> None:
        """Ask the sites that are there, at once."""
        if what != "ask":
            return
        said = dict(head["head"])
        step = str(said.get("step", ""))
        said |= {name: bytes.fromhex(said[name]) for name in ("agreement", "signature")}
        for site in head["sites"]:
            crossing = self.world.asked(site, step, body)
            if crossing is None or site in self.world.gone:
                continue
            self._answered(site, step, said, crossing, head["ref"])

    def _answered(self, site: str, step: str, said: Message, body: bytes, ref: int) -> None:
        found = self.world.answer(site, said, body)
        self.world.log.append((site, step, found))
        crossing = self.world.answered(site, step, found)
        if crossing is None:
            return
        content, reason = (crossing, "") if isinstance(crossing, bytes) else (b"", crossing)
        self.waiting.append(
            Frame(head={"what": "answer", "ref": ref, "site": site, "reason": reason}, body=content)
        )

    def receive(self, timeout: float | None = None) -> Frame | None:
        """The next frame."""
        there = [name for name in self.world.names if name not in self.world.gone]
        if there != self.there:
            self.there = there
            return Frame(head={"what": "there", "sites": there})
        if self.waiting:
            return self.waiting.popleft()
        self.looks -= 1
        self.world.clock += 7.0
        raise TimeoutError


def swapped(frame: Frame, **head: Any) -> Frame:
    """A frame that says something else."""
    return replace(frame, head=frame.head | head)
