"""Secure aggregation: a round of masked vectors beside the plain sum of the same integers.

Sites and coordinator run one after the other in this process, nothing is sent. `plain` is what the same round
costs without masks: each site packs its integers, the coordinator unpacks and adds them. Bytes a site are all
that it sends and receives in a round but the adapter itself. One site in ten drops out after its round key
was advertised, or one of more than three; `keystream` is AES-256-CTR and the additions of one site's masks.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bench.table import row, show
from federated.secagg import coordinator, masks, offer, site, state, unmask
from federated.secagg.federation import Federation, Member, SiteKeys
from federated.secagg.lattice import Lattice, encode, most_level
from federated.secagg.noise import draw

_VALUES, _SITES, _BITS, _ABOUT = 1_000_000, (3, 10, 30, 100), 24, "a" * 64
_Made = TypeVar("_Made")


@dataclass
class _Taken:
    """CPU seconds and bytes, by step."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    size: dict[str, list[int]] = field(default_factory=dict)

    def of(self, name: str, work: Callable[[], _Made]) -> _Made:
        began = time.process_time()
        made = work()
        self.seconds.setdefault(name, []).append(time.process_time() - began)
        return made

    def carried(self, name: str, content: bytes) -> bytes:
        self.size.setdefault(name, []).append(len(content))
        return content

    def middle(self, *names: str) -> float:
        return sum(statistics.median(self.seconds[name]) for name in names)

    def bytes_of(self, *names: str) -> float:
        return sum(statistics.median(self.size[name]) for name in names)


def run(options: Any) -> None:
    """A round for each number of sites, and the cost of encoding and noise."""
    values = options.records or _VALUES
    rows = [found for count in _SITES for found in _round(count, values)]
    show([*rows, *_encoding(values)], options.json)


def _round(count: int, values: int) -> list[dict[str, Any]]:
    names = [f"site-{number:03}" for number in range(count)]
    keys = {
        name: SiteKeys(site=name, sign=Ed25519PrivateKey.generate(), x25519=X25519PrivateKey.generate())
        for name in names
    }
    members = {
        name: Member(
            sign=held.sign.public_key().public_bytes_raw(), x25519=held.x25519.public_key().public_bytes_raw()
        )
        for name, held in keys.items()
    }
    federation, taken = Federation(id="f" * 64, members=members), _Taken()
    space = Lattice(bits=_BITS, values=values, clip=1.0, scale=2e4, level=20_000, sites=count)  # type: ignore[arg-type]
    plan = coordinator.plan_round(federation, 1, names)
    states = {name: state.fresh(federation.id, name) for name in names}
    offers = {}
    for name in names:
        states[name], said = taken.of(
            "advertise", lambda name=name: offer.advertise(states[name], keys[name], federation, plan)
        )
        taken.carried("advertise", said)
        offers[name] = taken.of(
            "check", lambda name=name, said=said: coordinator.advertised(federation, plan, name, said)
        )
    asked = coordinator.ask(federation, space, plan, offers, about=_ABOUT)
    survivors = names[: count - (count > 3) * max(1, count // 10)]
    total, replies = np.zeros(values, np.int64), []
    for number, name in enumerate(survivors):
        integers = np.random.default_rng(number).integers(-20_000, 20_001, values)
        total += integers
        message = taken.carried("request", coordinator.train_message(federation, asked, offers, name))
        states[name], said = taken.of(
            "mask",
            lambda name=name, message=message, integers=integers: site.masked(
                states[name], keys[name], federation, space, message, integers, weight=1, about=_ABOUT
            ),
        )
        replies.append((name, taken.carried("reply", said)))
        packed = taken.of(
            "pack", lambda integers=integers: masks.to_bytes(masks.words(integers, _BITS), _BITS)
        )
        taken.carried("pack", packed)
        taken.of("add", lambda packed=packed: masks.from_bytes(packed, _BITS) + np.uint32(1))
    gathered = taken.of("gather", lambda: coordinator.gather(federation, space, asked, replies))
    answers = []
    for name in survivors:
        message = taken.carried("question", coordinator.unmask_message(federation, asked, gathered, name))
        states[name], said = taken.of(
            "reveal",
            lambda name=name, message=message: site.reveal(states[name], keys[name], federation, message),
        )
        answers.append((name, taken.carried("answer", said)))
    found = taken.of("unmask", lambda: unmask.unmask(federation, asked, offers, gathered, answers))
    if not np.array_equal(masks.centred(found.total, _BITS), total):
        raise SystemExit("the masked sum is not the plain sum")
    taken.of("keystream", lambda: _keystream(len(survivors), values))
    plain = taken.middle("add") * len(survivors)
    case = f"{count} sites, {len(survivors)} of them to the end"
    ours = taken.middle("gather", "unmask") + taken.middle("check") * count
    sent = taken.bytes_of("advertise", "reply", "answer", "request", "question")
    return [
        row(
            "secagg",
            case,
            "a site: masked/packed",
            *_pair(taken, ("advertise", "mask", "reveal"), "pack"),
            "CPU s",
        ),
        row("secagg", case, "a site: mask/keystream", *_pair(taken, ("mask",), "keystream"), "CPU s"),
        row("secagg", case, "coordinator: masked/plain", ours, plain, "CPU s"),
        row("secagg", case, "a site: bytes, masked/plain", sent, taken.bytes_of("pack"), "B"),
    ]


def _pair(taken: _Taken, ours: tuple[str, ...], peer: str) -> tuple[float, float]:
    return taken.middle(*ours), taken.middle(peer)


def _keystream(sites: int, values: int) -> None:
    total = np.zeros(values, np.uint32)
    masks.add_masks(total, [(bytes([number]) * 32, 1) for number in range(sites)])


def _encoding(values: int) -> list[dict[str, Any]]:
    space = Lattice(bits=32, values=values, clip=1.0, scale=2e4, level=20_000, sites=100, sigma=4000.0)
    change = np.random.default_rng(0).normal(size=values).astype(np.float32)
    change /= np.linalg.norm(change)
    taken = _Taken()
    for _ in range(5):
        taken.of("nearest", lambda: encode(change, space, rounding="nearest"))
        taken.of("stochastic", lambda: encode(change, space))
        taken.of("noise", lambda: draw(space))
    case = f"{values:,} values, level up to {most_level(space):,}"
    return [
        row("secagg", case, "encode: stochastic/nearest", *_pair(taken, ("stochastic",), "nearest"), "CPU s"),
        row("secagg", case, "noise/stochastic encode", *_pair(taken, ("noise",), "stochastic"), "CPU s"),
    ]
