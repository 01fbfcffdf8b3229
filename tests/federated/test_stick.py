"""Rounds that are carried by hand: real bundles between homes, no link; the same adapter as over a link."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from world import LAYOUT, agreement

from appliance.core.errors import BundleRefused, TrustRefused
from appliance.core.files import disk_full
from appliance.core.home import open_home
from appliance.security.bundle import importing, releasing
from appliance.security.trust import store
from appliance.security.trust.identity import Identity, new_identity, public
from federated import carrying, checkpoint, description, hub, member, seat, stick
from federated.course import Course
from federated.flower.frames import Frame, Line, packed, unpacked
from federated.layout import Array
from federated.policy import Policy
from federated.seat import Learnt, Seat

NAMES = ("s1", "s2", "s3")


def learnt(number: int, round_: int, size: int) -> Array:
    """The change of a site in a round."""
    return (0.1 * np.random.default_rng([number, round_]).normal(size=size)).astype(np.float32)


class World:
    """A coordinator and three sites, each with a home and keys of its own, none with a link."""

    def __init__(self, root: Path, sites: int = 3) -> None:
        self.names = tuple(f"s{number}" for number in range(1, sites + 1))
        self.keys = {name: new_identity(name, "site") for name in ("hub", *self.names)}
        self.homes = {name: open_home(root / name) for name in self.keys}
        for name, home in self.homes.items():
            for other, held in self.keys.items():
                if other != name:
                    card = public(held)
                    store.pin(home, card, words=card.words, compared_by=["mira", "joe"], who="mira")
        drawn = agreement(sites, count=2)
        sites = [site.model_copy(update={"key": self.keys[site.name].key}) for site in drawn.sites]
        self.federation = drawn.model_copy(
            update={
                "coordinator_key": self.keys["hub"].key,
                "sites": sites,
                "expires": datetime.now(UTC) + timedelta(days=1),
            }
        )
        self.file = description.written(self.federation)
        self.signature = self.keys["hub"].sign(description.PURPOSE + self.file)
        self.course = Course(
            home=root / "rounds",
            federation=self.federation,
            digest=description.digest(self.file),
            layout=LAYOUT,
            start=np.zeros(LAYOUT.values, dtype=np.float32),
            sign=self.keys["hub"].sign,
        )
        self.told: list[dict[str, Any]] = []
        for name in self.names:
            stick.carry(self.stick("hub"), name)

    def stick(self, name: str) -> Path:
        """Where the frames of somebody lie."""
        return self.homes[name].path / "stick"

    def seat(self, name: str) -> Seat:
        """A site's seat."""
        number = int(name[1:])
        made = Seat(
            home=self.homes[name].path / "seat",
            name=name,
            layout=LAYOUT,
            policy=lambda: Policy(dataset="d", epsilon=8.0, delta=1e-5),
            unit="patient",
            sign=self.keys[name].sign,
            train=lambda adapter, round_: Learnt(
                change=learnt(number, round_, adapter.size), units=10 * number
            ),
            loss=lambda adapter: 1.0,
            own_versions=lambda federation: None,
        )
        seat.join(made, self.file, self.signature, self.keys["hub"].key)
        return made

    def export(self, by: str, to: str, out: Path) -> Path:
        """Write what waits at `by` for `to` as a bundle."""
        site = to if by == "hub" else by
        frame = stick.waiting(self.stick(by), to if by == "hub" else stick.COORDINATOR)
        assert frame is not None
        receiver = store.receivers(self.homes[by])[to]
        asked = carrying.leaving(self.federation, site, frame, receiver)
        return releasing.export(self.homes[by], asked, out, identity=self.keys[by], who="mira").path

    def take(self, at: str, bundle: Path, *, whose: Identity | None = None) -> carrying.Carried:
        """Bring a bundle in and lay its frame out for the job."""
        home, held = self.homes[at], whose or self.keys[at]
        brought = importing.import_bundle(home, bundle, identity=held, kinds={carrying.KIND}, who="mira")
        found = carrying.arrived(brought.opened, brought.folder, self.federation, held.key)
        stick.put(self.stick(at), "in", found.site if at == "hub" else stick.COORDINATOR, found.frame)
        importing.entered(home, brought.opened.digest, "round", who="mira")
        return found


@contextmanager
def working(work: Callable[[Callable[[], bool]], object]) -> Iterator[None]:
    """Run it in a thread until the block ends."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over.is_set,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)
        assert not thread.is_alive()


def until(true: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    limit = time.monotonic() + 60
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@contextmanager
def coordinator(
    world: World, newest: Callable[[], tuple[bytes, bytes] | None] = lambda: None
) -> Iterator[None]:
    """The job of the coordinator; its link sees nobody."""
    ours, theirs = socket.socketpair()
    line = Line(ours)

    def work(over: Callable[[], bool]) -> None:
        hub.run(
            world.course,
            stick.HubStick(line, world.stick("hub")),
            lambda what, **facts: world.told.append({"what": what, **facts}),
            agreement=world.file,
            signature=world.signature,
            clock=time.time,
            over=over,
            newest=newest,
        )

    with theirs, working(work):
        yield
    line.close()


def answered(world: World, name: str, reason: str = "") -> bytes:
    """Let a site's job answer what lies there."""
    held = stick.SiteStick(world.stick(name))
    out = world.stick(name) / "out" / "coordinator.frame"
    out.unlink(missing_ok=True)
    with working(lambda over: member.serve(world.seat(name), held, lambda what, **facts: None, over=over)):
        until(out.is_file)
    frame = stick.waiting(world.stick(name), stick.COORDINATOR)
    assert frame is not None and frame.head["reason"] == reason
    return frame.body


def test_two_rounds_by_stick_give_the_plain_mean(world: World, tmp_path: Path) -> None:
    for number in (1, 2):
        # The coordinator is killed and started again between asking and the answers.
        with coordinator(world):
            for name in NAMES:
                asked = world.stick("hub") / "out" / f"{name}.frame"
                until(
                    lambda asked=asked, number=number: (
                        asked.is_file() and unpacked(asked.read_bytes()).head["ref"] == number
                    )
                )
        for name in NAMES:
            found = world.take(name, world.export("hub", name, tmp_path / f"ask-{name}-{number}.clb"))
            assert (found.site, found.round) == (name, number)
            answered(world, name)
            world.take("hub", world.export(name, "hub", tmp_path / f"answer-{name}-{number}.clb"))
        with coordinator(world):
            until(lambda number=number: world.course.last()[0] == number)
    _, state = world.course.last()
    weights = {"s1": 10, "s2": 20, "s3": 30}
    wanted = (
        sum(weights[f"s{n}"] * learnt(n, round_, LAYOUT.values) for n in (1, 2, 3) for round_ in (1, 2)) / 60
    )
    assert np.abs(state.adapter - wanted).max() < 0.01  # int8 on both ways
    record = checkpoint.read_record(world.course.home, 2, world.federation.coordinator_key)
    assert record is not None and sorted(record.weights) == list(NAMES)
    assert not list((world.stick("hub") / "in").glob("*"))


@pytest.mark.parametrize("where", ["training", "keeping"])
def test_a_site_whose_disk_is_full_answers_so(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: Any) -> Any:
        raise disk_full(tmp_path)

    with coordinator(world):
        until((world.stick("hub") / "out" / "s2.frame").is_file)
    asked = world.export("hub", "s2", tmp_path / "ask.clb")
    world.take("s2", asked)
    with monkeypatch.context() as spoilt:
        if where == "keeping":
            spoilt.setattr(seat, "count_round", full)
        else:
            no_room = replace(world.seat("s2"), train=full)
            spoilt.setattr(world, "seat", lambda _: no_room)
        assert answered(world, "s2", "disk") == b""


def test_a_site_dropped_while_a_round_runs_is_waited_for_no_more(tmp_path: Path) -> None:
    world = World(tmp_path, sites=4)
    versions: list[tuple[bytes, bytes]] = []
    with coordinator(world, lambda: versions.pop() if versions else None):
        for name in world.names:
            until((world.stick("hub") / "out" / f"{name}.frame").is_file)
        for name in world.names:
            world.take(name, world.export("hub", name, tmp_path / f"ask-{name}.clb"))
        for name in world.names[1:]:
            answered(world, name)
            world.take("hub", world.export(name, "hub", tmp_path / f"answer-{name}.clb"))
        until(lambda: sum(one["what"] == "update" for one in world.told) == 3)
        assert world.course.last()[0] == 0  # s1 is waited for
        sites = [
            site.model_copy(update={"state": "dropped" if site.name == "s1" else "in"})
            for site in world.federation.sites
        ]
        newer = world.federation.model_copy(update={"version": 2, "sites": sites})
        file = description.written(newer)
        versions.append((file, world.keys["hub"].sign(description.PURPOSE + file)))
        until(lambda: world.course.last()[0] == 1)
        answered(world, "s1")  # what it had begun comes too late
        world.take("hub", world.export("s1", "hub", tmp_path / "answer-s1.clb"))
        until(lambda: any(one["what"] == "agreement" and one["version"] == 2 for one in world.told))
    record = checkpoint.read_record(world.course.home, 1, world.federation.coordinator_key)
    assert record is not None and sorted(record.weights) == ["s2", "s3", "s4"]
    assert record.refused == {"s1": hub.OUT}


def asked_for(world: World, name: str) -> None:
    with coordinator(world):
        until((world.stick("hub") / "out" / f"{name}.frame").is_file)


def test_a_round_for_another_or_from_another_is_refused(world: World, tmp_path: Path) -> None:
    asked_for(world, "s1")
    bundle = world.export("hub", "s1", tmp_path / "ask.clb")
    with pytest.raises(BundleRefused) as refused:  # s2 gets the stick
        world.take("s2", bundle)
    assert refused.value.reason == "other-recipient"
    world.take("s1", bundle)
    with pytest.raises(BundleRefused) as refused:
        world.take("s1", bundle)
    assert refused.value.reason == "replayed"


def test_a_trusted_site_does_not_ask_in_the_coordinators_name(world: World, tmp_path: Path) -> None:
    asked_for(world, "s1")
    frame = stick.waiting(world.stick("hub"), "s1")
    assert frame is not None
    forged = carrying.leaving(world.federation, "s1", frame, store.receivers(world.homes["s2"])["s1"])
    bundle = releasing.export(
        world.homes["s2"], forged, tmp_path / "x.clb", identity=world.keys["s2"], who="eve"
    )
    with pytest.raises(TrustRefused, match="signed by s2"):
        world.take("s1", bundle.path)
    assert not (world.stick("s1") / "in").exists()


def test_a_site_does_not_answer_in_anothers_name(world: World, tmp_path: Path) -> None:
    answer = Frame(head={"what": "answer", "round": 1, "reason": ""}, body=b"x")
    asked = carrying.leaving(world.federation, "s1", answer, store.receivers(world.homes["s2"])["hub"])
    bundle = releasing.export(
        world.homes["s2"], asked, tmp_path / "x.clb", identity=world.keys["s2"], who="eve"
    )
    with pytest.raises(TrustRefused, match="signed by s2"):
        world.take("hub", bundle.path)


def test_a_round_of_another_federation_is_refused(world: World, tmp_path: Path) -> None:
    asked_for(world, "s1")
    bundle = world.export("hub", "s1", tmp_path / "ask.clb")
    world.federation = world.federation.model_copy(update={"id": "2" * 64})
    with pytest.raises(TrustRefused, match="another federation"):
        world.take("s1", bundle)


def test_a_frame_that_came_while_another_is_taken_stays(tmp_path: Path) -> None:
    held = stick.SiteStick(tmp_path)
    first, second = (Frame(head={"what": "asked", "n": n}, body=b"b" * n) for n in (1, 2))
    stick.put(tmp_path, "in", stick.COORDINATOR, first)
    assert held.receive(0) == first
    stick.put(tmp_path, "in", stick.COORDINATOR, second)
    assert held.receive(0) == second
    with pytest.raises(TimeoutError):
        held.receive(0)


def test_what_lies_there_and_is_no_frame_is_passed_over(tmp_path: Path) -> None:
    held = stick.SiteStick(tmp_path)
    (tmp_path / "in").mkdir()
    for number, content in enumerate((b"", b"x" * 40, packed(Frame(head={"a": 1}))[:-1])):
        (tmp_path / "in" / f"{number}.frame").write_bytes(content)
    with pytest.raises(TimeoutError):
        held.receive(0)
    assert not list((tmp_path / "in").iterdir())
