"""Secure rounds over real processes: three sites; the coordinator and a site are killed in the middle."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_links import Hub, Site, killed, started
from world import LAYOUT

from federated import checkpoint
from federated.flower.frames import Ends, Frame
from federated.secure import attempt, pinned

pytestmark = pytest.mark.slow

NAMES = ("s1", "s2", "s3")


def equal(hub: Hub, number: int) -> None:
    """The adapter moved by the plain weighted mean of all three, to a step of the lattice."""
    record = hub.record(number)
    assert record is not None and sorted(record.updates) == list(NAMES) and record.rule == "secure mean"
    weights = [pinned.weight_of(hub.course.federation, 10 * int(name[1:])) for name in NAMES]
    changes = [
        0.1 * np.random.default_rng([int(name[1:]), number]).normal(size=LAYOUT.values) for name in NAMES
    ]
    content = (checkpoint.folder_of(hub.course.home, number) / "change").read_bytes()
    step = 1 / pinned.lattice_of(hub.course.federation, LAYOUT.values).scale
    wanted = np.average(changes, axis=0, weights=weights)
    np.testing.assert_allclose(np.frombuffer(content, "<f4"), wanted, rtol=0, atol=2 * step)


class Watched:
    """A site's line; says when the worker is asked to open a sum, which it hears when `held` is clear."""

    carried: frozenset[str] = frozenset()

    def __init__(self, line: Ends, held: threading.Event, opening: threading.Event) -> None:
        self.line, self.held, self.opening = line, held, opening

    def send(self, what: str, body: bytes = b"", **head: Any) -> None:
        """As it is."""
        self.line.send(what, body, **head)

    def receive(self, timeout: float | None = None) -> Frame | None:
        """The next."""
        frame = self.line.receive(timeout)
        if frame is not None and frame.head.get("head", {}).get("step") == "open":
            while self.held.is_set():
                self.opening.set()
                time.sleep(0.02)
        return frame


def training(sites: dict[str, Site], *, on: bool) -> None:
    """Hold all sites in their training, or let them go."""
    for site in sites.values():
        site.training.clear()
        (site.held.set if on else site.held.clear)()


def test_secure_rounds_go_on_whoever_is_killed(tmp_path: Path) -> None:
    hub, sites = started(tmp_path, 3, count=4, quorum=3, deadline_minutes=0.5, packing="f32", secure=True)
    held, opening = threading.Event(), threading.Event()
    with ExitStack() as all_of_it:
        side = all_of_it.enter_context(hub.running())
        for name in ("s1", "s2"):
            all_of_it.enter_context(sites[name].running())
        with sites["s3"].running() as third:
            hub.until(1)
            equal(hub, 1)

            training(sites, on=True)
            assert sites["s3"].training.wait(60)
            killed(third)  # a site dies in the middle: with three of three to open, the round waits for it
            training(sites, on=False)
        running = hub.course.last()[0] + 1
        all_of_it.enter_context(sites["s3"].running(lambda line: Watched(line, held, opening)))
        hub.until(running, 180)

        training(sites, on=True)
        assert sites["s1"].training.wait(60)
        before = attempt.kept(hub.course.home, running + 1)
        killed(side)  # the coordinator dies while sites train: the attempt is begun anew
        training(sites, on=False)
        held.set()
        with hub.running() as second:
            assert opening.wait(120)
            fixed = attempt.kept(hub.course.home, running + 1)
            assert before is not None and fixed is not None
            assert fixed.number > before.number and fixed.survivors == NAMES
            killed(second)  # and while the sum is opened: that one is finished
        held.clear()
        with hub.running():
            hub.until(4, 180)
    for number in range(1, 5):
        equal(hub, number)
    assert hub.course.last()[0] == 4
