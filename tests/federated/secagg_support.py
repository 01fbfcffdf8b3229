"""A federation in memory: sites with their states, and a coordinator that keeps to the protocol."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from federated.secagg import coordinator, offer, site, state
from federated.secagg.context import Asked
from federated.secagg.coordinator import Advertised, Gathered
from federated.secagg.federation import Federation, Member, Plan, SiteKeys
from federated.secagg.lattice import Lattice
from federated.secagg.state import State
from federated.secagg.unmask import Summed, unmask

ABOUT = "a" * 64
Integers = NDArray[np.int64]


@cache
def keys_of(name: str) -> SiteKeys:
    """The keys of a site, the same in every test."""
    return SiteKeys(
        site=name,
        sign=Ed25519PrivateKey.from_private_bytes(name.encode().rjust(32, b"s")),
        x25519=X25519PrivateKey.from_private_bytes(name.encode().rjust(32, b"x")),
    )


def names(count: int) -> list[str]:
    """s000, s001 and so on."""
    return [f"s{number:03}" for number in range(count)]


def member(name: str) -> Member:
    """The public keys of a site."""
    keys = keys_of(name)
    return Member(
        sign=keys.sign.public_key().public_bytes_raw(), x25519=keys.x25519.public_key().public_bytes_raw()
    )


def federation(count: int, minimum: int = 3) -> Federation:
    """A federation of `count` sites."""
    return Federation(id="f" * 64, members={name: member(name) for name in names(count)}, minimum=minimum)


def lattice(values: int = 5, sites: int = 20, bits: int = 32, most: int = 1) -> Lattice:
    """A lattice on which any int of up to 100 fits."""
    return Lattice(
        bits=bits, values=values, clip=1.0, scale=1000.0, level=100, sites=sites, most=most  # type: ignore[arg-type]
    )  # fmt: skip


@dataclass
class Network:
    """Sites and an honest coordinator. States go through their bytes, as if each site restarted each time."""

    federation: Federation
    lattice: Lattice
    stored: dict[str, bytes] = field(default_factory=dict)

    def state(self, name: str) -> State:
        held = self.stored.get(name)
        return state.fresh(self.federation.id, name) if held is None else state.state_of(held)

    def advertise(self, name: str, plan: Plan) -> bytes:
        after, answer = offer.advertise(self.state(name), keys_of(name), self.federation, plan)
        self.stored[name] = state.to_bytes(after)
        return answer

    def masked(self, name: str, message: bytes, integers: Integers, weight: int = 1) -> bytes:
        after, answer = site.masked(
            self.state(name),
            keys_of(name),
            self.federation,
            self.lattice,
            message,
            integers,
            weight=weight,
            about=ABOUT,
        )
        self.stored[name] = state.to_bytes(after)
        return answer

    def reveal(self, name: str, message: bytes) -> bytes:
        after, answer = site.reveal(self.state(name), keys_of(name), self.federation, message)
        self.stored[name] = state.to_bytes(after)
        return answer

    def open(self, number: int, sites: Iterable[str], threshold: int | None = None) -> Round:
        plan = coordinator.plan_round(self.federation, number, sites, threshold=threshold)
        offers = {
            name: coordinator.advertised(self.federation, plan, name, self.advertise(name, plan))
            for name in plan.roster
        }
        return Round(network=self, plan=plan, offers=offers, asked=self.ask(plan, offers))

    def ask(self, plan: Plan, offers: dict[str, Advertised]) -> Asked:
        return coordinator.ask(self.federation, self.lattice, plan, offers, about=ABOUT)


@dataclass
class Round:
    """One round, step by step."""

    network: Network
    plan: Plan
    offers: dict[str, Advertised]
    asked: Asked

    def request(self, name: str) -> bytes:
        return coordinator.train_message(self.network.federation, self.asked, self.offers, name)

    def replies(self, vectors: dict[str, Integers]) -> list[tuple[str, bytes]]:
        return [(name, self.network.masked(name, self.request(name), held)) for name, held in vectors.items()]

    def gather(self, replies: Iterable[tuple[str, bytes]]) -> Gathered:
        return coordinator.gather(self.network.federation, self.network.lattice, self.asked, replies)

    def question(self, gathered: Gathered, name: str) -> bytes:
        return coordinator.unmask_message(self.network.federation, self.asked, gathered, name)

    def answers(self, gathered: Gathered, sites: Collection[str]) -> list[tuple[str, bytes]]:
        return [(name, self.network.reveal(name, self.question(gathered, name))) for name in sites]

    def sum(self, gathered: Gathered, answers: Iterable[tuple[str, bytes]]) -> Summed:
        return unmask(self.network.federation, self.asked, self.offers, gathered, answers)


def vectors(sites: Iterable[str], values: int = 5, seed: int = 0) -> dict[str, Integers]:
    """Integers of each site, from -100 to 100."""
    draw = np.random.default_rng(seed)
    return {name: draw.integers(-100, 101, values) for name in sites}
