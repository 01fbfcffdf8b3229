"""A federation in one process, seeded: sites, a link that loses, delays, doubles and swaps, and crashes.

Everything but the link and the training is the product's own code.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from appliance.core.errors import BudgetSpent
from federated import checkpoint, course, description, seat
from federated.admit import Admitted
from federated.course import Course
from federated.description import Code, Federation, Model, Rounds, Site, Task, Training
from federated.layout import Array, layout_of
from federated.policy import Policy
from federated.rounds import next_step
from federated.seat import Learnt, Request, Seat

LAYOUT = layout_of({"m.lora_A.weight": (2, 9), "m.lora_B.weight": (7, 2)})
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def key(number: int) -> Ed25519PrivateKey:
    """The Ed25519 key of site `number`; 0 is the coordinator."""
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def public(number: int) -> str:
    """Its public half, in hex."""
    return key(number).public_key().public_bytes_raw().hex()


def round_key(number: int) -> X25519PrivateKey:
    """The X25519 key of site `number` for secure rounds."""
    return X25519PrivateKey.from_private_bytes(bytes([number]) * 31 + b"x")


def agreement(sites: int, **rounds: Any) -> Federation:
    """A federation of `sites` sites."""
    settings: dict[str, Any] = {
        "count": 4, "quorum": 3, "min_cohort": 3, "deadline_minutes": 1.0, "clip_bound": 1.0,
    }  # fmt: skip
    return Federation(
        v=1,
        id="1" * 64,
        version=1,
        name="north",
        coordinator="hub",
        coordinator_key=public(0),
        gateway="hub.example:8443",
        created=NOW,
        expires=NOW + timedelta(days=90),
        model=Model(
            base="tiny",
            sha256="b" * 64,
            layout=LAYOUT.sha256(),
            rank=2,
            alpha=4,
            targets=["v_proj"],
            layers=0,
            frozen="d" * 64,
            seed=0,
        ),
        task=Task(kind="label", prompt="{text}", labels=["a", "b"]),
        rounds=Rounds(**(settings | rounds)),
        training=Training(
            epsilon=8.0,
            delta=1e-5,
            unit="patient",
            steps=1,
            sample_rate=0.5,
            learning_rate=0.1,
            max_grad_norm=0.2,
        ),
        code=Code(cloister="1", flwr="1.41.0", fab="c" * 64),
        sites=[
            Site(
                name=f"s{number}",
                key=public(number),
                x25519=round_key(number).public_key().public_bytes_raw().hex(),
                node=f"ecdsa-sha2-nistp384 {number:0>160}",
                certificate=f"{number + 1000:064x}",
                units=100,
            )
            for number in range(1, sites + 1)
        ],
    )


@dataclass
class World:
    """All of it: `charged` and `trained` count each site's rounds."""

    folder: Path
    seed: int
    sites: int = 5
    lossy: bool = True
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.federation = agreement(self.sites, **self.settings)
        self.file = description.written(self.federation)
        self.signature = key(0).sign(description.PURPOSE + self.file)
        self.start = np.random.default_rng(self.seed).normal(size=LAYOUT.values).astype(np.float32)
        self.charged: dict[str, int] = defaultdict(int)
        self.trained: dict[str, int] = defaultdict(int)
        self.budget = {
            f"s{n}": self.draw.choice([2, 100]) if self.lossy else 100 for n in range(1, self.sites + 1)
        }
        self.told: list[tuple[str, str]] = []
        self.sent: dict[tuple[str, int], set[bytes]] = defaultdict(set)
        self.course = Course(
            home=self.folder / "hub",
            federation=self.federation,
            digest=description.digest(self.file),
            layout=LAYOUT,
            start=self.start,
            sign=key(0).sign,
        )
        self.seats = {name: self.seat(name) for name in self.budget}
        for one in self.seats.values():
            seat.join(one, self.file, self.signature, public(0))

    def seat(self, name: str) -> Seat:
        """A site's process, as after a start."""
        number = int(name[1:])

        def train(adapter: Array, round_: int) -> Learnt:
            if self.charged[name] >= self.budget[name]:
                raise BudgetSpent("spent", "stop")
            self.charged[name] += 1
            if self.lossy and self.draw.random() < 0.1:
                raise Crash
            self.trained[name] += 1
            drawn = np.random.default_rng([self.seed, number, round_]).normal(size=adapter.size)
            return Learnt(change=(0.1 * drawn).astype(np.float32), units=10 * number)

        return Seat(
            home=self.folder / name,
            name=name,
            layout=LAYOUT,
            policy=lambda: Policy(dataset="d", epsilon=8.0, delta=1e-5),
            unit="patient",
            sign=key(number).sign,
            train=train,
            loss=lambda adapter: 1.0,
            own_versions=lambda federation: None,
        )

    def request(self, state: Any) -> Request:
        """What the coordinator asks in a round."""
        _, now = self.course.last()
        return Request(
            agreement=self.file,
            signature=self.signature,
            round=state.number,
            cohort=len(state.cohort),
            adapter=now.adapter,
        )

    def chance(self, share: float) -> bool:
        """Whether something goes wrong now."""
        return self.lossy and self.draw.random() < share

    def run(self) -> None:
        """All rounds, to the end or until they cannot go on."""
        clock, link = 0.0, []
        for _ in range(200):
            number, _ = self.course.last()
            if number >= self.federation.rounds.count:
                return
            there = [name for name in self.seats if not self.chance(0.1)]
            if checkpoint.kept_round(self.course.home, number + 1) is None and len(there) < 3:
                continue
            state = course.begin(self.course, there, now=clock)
            for name in state.open:
                if self.chance(0.15):
                    continue
                link += self.answered(name, self.request(state))
            self.draw.shuffle(link)
            late = [one for one in link if self.chance(0.1)]
            for name, content in link:
                if self.chance(0.05):
                    state = checkpoint.kept_round(self.course.home, state.number)  # the coordinator restarted
                if isinstance(content, bytes):
                    state, found = course.receive(self.course, state, content)
                    if not isinstance(found, Admitted):
                        self.told.append((name, found.code))
                else:
                    state = course.objected(self.course, state, name, content)
                    self.told.append((name, content))
            link = late
            clock += 61.0
            step = next_step(state, now=clock, quorum=self.federation.rounds.quorum)
            if step == "aggregate":
                self.closed(state)
            elif step == "ask-again":
                course.ask_again(self.course, state, there, now=clock)
            elif step == "give-up":
                return

    def answered(self, name: str, request: Request) -> list[tuple[str, Any]]:
        """What a site puts on the link."""
        try:
            content = seat.answer(self.seats[name], request, now=NOW)
        except Crash:
            self.seats[name] = self.seat(name)
            return []
        if isinstance(content, bytes):
            self.sent[name, request.round].add(content)
            if self.chance(0.1):
                spoilt = bytearray(content)
                spoilt[self.draw.randrange(len(spoilt))] ^= 1 + self.draw.randrange(255)
                return [(name, bytes(spoilt)), (name, content)]
            if self.chance(0.1):
                return [(name, content)] * 2
        return [(name, content)]

    def closed(self, state: Any) -> None:
        """Close a round; sometimes it dies before the record is written, and is done again."""
        if self.chance(0.2):
            try:
                course.close(replace(self.course, sign=_dies), state)
            except Crash:
                state = checkpoint.kept_round(self.course.home, state.number)
        course.close(self.course, state)


class Crash(Exception):
    """A kill at this place."""


def _dies(content: bytes) -> bytes:
    raise Crash
