"""Rounds over real processes: SuperLink, gateway, sidecars, SuperNodes; who is killed, who is kept out."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import link_support as links
import numpy as np
import psutil
import pytest
from world import LAYOUT, key, public, round_key

from federated import checkpoint, description, hub, member, seat
from federated.course import Course
from federated.description import Federation
from federated.flower.frames import Ends
from federated.layout import Array
from federated.policy import Policy
from federated.seat import Learnt, Seat
from federated.secagg.federation import SiteKeys

pytestmark = pytest.mark.slow


class Site:
    """A site's worker in a thread; its link is a process with children. While `held` is set it trains."""

    def __init__(self, root: Path, name: str, port: int, file: bytes, signature: bytes) -> None:
        self.root, self.name, self.port = root, name, port
        self.told: list[dict[str, Any]] = []
        self.held, self.training = threading.Event(), threading.Event()
        number = int(name[1:])

        def train(adapter: Array, round_: int) -> Learnt:
            self.training.set()
            while self.held.is_set():
                time.sleep(0.02)
            drawn = np.random.default_rng([number, round_]).normal(size=adapter.size)
            return Learnt(change=(0.1 * drawn).astype(np.float32), units=10 * number)

        self.seat = Seat(
            home=root / name / "seat",
            name=name,
            layout=LAYOUT,
            policy=lambda: Policy(dataset="d", epsilon=8.0, delta=1e-5),
            unit="patient",
            sign=key(number).sign,
            train=train,
            loss=lambda adapter: 1.0,
            own_versions=lambda federation: None,
            keys=SiteKeys(site=name, sign=key(number), x25519=round_key(number)),
        )
        seat.join(self.seat, file, signature, public(0))

    @contextmanager
    def running(self, through: Callable[[Ends], Ends] = lambda line: line) -> Iterator[links.Side]:
        """The link, and a thread that answers, `through` a line that may change what it says."""
        with (
            links.site(self.root, self.name, self.port) as side,
            _working(lambda over: member.serve(self.seat, through(side.line), self.hear, over=over)),
        ):
            yield side

    def hear(self, what: str, **facts: Any) -> None:
        """Keep what the worker tells."""
        self.told.append({"what": what, **facts})


class Hub:
    """The coordinator's worker in a thread."""

    def __init__(self, root: Path, federation: Federation, port: int, file: bytes, signature: bytes) -> None:
        self.root, self.port, self.told = root, port, list[dict[str, Any]]()
        self.agreement, self.signature = file, signature
        self.closing = False
        self.course = Course(
            home=root / "hub",
            federation=federation,
            digest=description.digest(file),
            layout=LAYOUT,
            start=np.zeros(LAYOUT.values, dtype=np.float32),
            sign=key(0).sign,
        )

    @contextmanager
    def running(self) -> Iterator[links.Side]:
        """The link, and a thread that runs the rounds."""
        with links.hub(self.root, self.port) as side, _working(lambda over: self.run(side, over)):
            yield side

    def run(self, side: links.Side, over: Callable[[], bool]) -> None:
        """The rounds."""
        hub.run(
            self.course,
            side.line,
            lambda what, **facts: self.told.append({"what": what, **facts}),
            agreement=self.agreement,
            signature=self.signature,
            clock=time.time,
            over=over,
            closed=self.closed if self.closing else None,
        )

    def closed(self) -> tuple[bytes, bytes]:
        """The last version of the agreement."""
        federation = self.course.federation
        made = federation.model_copy(update={"ended": True, "version": federation.version + 1})
        file = description.written(made)
        return file, key(0).sign(description.PURPOSE + file)

    def record(self, number: int) -> checkpoint.Record | None:
        """The record of a round."""
        return checkpoint.read_record(self.course.home, number, public(0))

    def until(self, number: int, seconds: float = 180.0) -> checkpoint.Record:
        """The record of a round, once it is committed."""
        limit = time.monotonic() + seconds
        while (found := self.record(number)) is None:
            assert time.monotonic() < limit, f"round {number}: {self.told[-5:]}"
            time.sleep(0.1)
        return found


@contextmanager
def _working(work: Callable[[Callable[[], bool]], object]) -> Iterator[None]:
    over = threading.Event()

    def run() -> None:
        with suppress(OSError):  # the link was killed
            work(over.is_set)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def started(root: Path, sites: int, **rounds: Any) -> tuple[Hub, dict[str, Site]]:
    """A federation whose members have joined and do not run yet."""
    federation, port = links.prepare(root, sites, **rounds)
    file = description.written(federation)
    signature = key(0).sign(description.PURPOSE + file)
    members = {site.name: Site(root, site.name, port, file, signature) for site in federation.sites}
    return Hub(root, federation, port, file, signature), members


def killed(side: links.Side) -> None:
    """kill -9 of a link and of all that it started."""
    whole = psutil.Process(side.process.pid)
    for one in [whole, *whole.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    side.process.wait(60)


def listening(side: links.Side) -> set[tuple[str, int]]:
    """Addresses that a link and its children listen on."""
    whole = psutil.Process(side.process.pid)
    found: set[tuple[str, int]] = set()
    for one in [whole, *whole.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # one that has ended since
            found |= {
                (place.laddr.ip, place.laddr.port)
                for place in one.net_connections("inet")
                if place.status == "LISTEN"
            }
    return found


def test_rounds_go_on_whoever_is_killed(tmp_path: Path) -> None:
    coordinator, sites = started(tmp_path, 4, count=5, quorum=3, deadline_minutes=0.5)
    with ExitStack() as all_of_it:
        side = all_of_it.enter_context(coordinator.running())
        with ExitStack() as three:
            for name in ("s1", "s2", "s3"):
                three.enter_context(sites[name].running())
            with sites["s4"].running() as fourth:
                first = coordinator.until(1)
                assert first.refused == {} and len(first.updates) >= 3

                sites["s4"].held.set()
                sites["s4"].training.clear()
                assert sites["s4"].training.wait(60)
                killed(fourth)  # a site dies in the middle of a round: the others finish it
                sites["s4"].held.clear()
            second = coordinator.until(2 if coordinator.record(2) is None else 3)
            assert set(second.updates) == {"s1", "s2", "s3"}
            # by the deadline, or as soon as the link misses its heartbeats
            assert second.refused.get("s4", "late") in ("late", "flower-5")

            links.kill_part(side, "federated.flower.gateway")  # the sites find the next one

            for site in sites.values():
                site.held.set()
            assert sites["s1"].training.wait(60)
            killed(side)  # the coordinator dies in the middle of a round
            for site in sites.values():
                site.held.clear()
            done = coordinator.course.last()[0]
            coordinator.closing = True
            with coordinator.running():
                coordinator.until(done + 1)
                with sites["s4"].running():  # and the fourth is back, with an adapter of long ago
                    last = coordinator.until(5, 300)
                    limit = time.monotonic() + 60
                    while coordinator.told[-1]["what"] != "ended":
                        assert time.monotonic() < limit, coordinator.told[-5:]
                        time.sleep(0.1)
                # who is there at the end hears of it, and its worker ends by itself
                assert set(coordinator.told[-1]["heard"]) >= {"s1", "s2", "s3"}
                for name in ("s1", "s2", "s3"):
                    assert sites[name].told[-1]["what"] == "ended"
                    newest = (sites[name].seat.home / "agreement.toml").read_bytes()
                    assert description.parsed(newest).ended
    assert len(last.updates) >= 3
    assert coordinator.course.last()[0] == 5
    # every site answered each round once, and what was averaged is what it signed
    for number in range(1, 6):
        record = coordinator.record(number)
        assert record is not None and len(record.updates) >= 3


def test_an_outsider_finds_every_door_shut(tmp_path: Path) -> None:
    import ssl

    import httpx

    from federated import pki
    from federated.flower.gateway import VERBS

    coordinator, _ = started(tmp_path, 3, count=1)
    port, ca = coordinator.port, str(tmp_path / "hub" / "pki" / "ca.crt")
    with coordinator.running() as side:
        side_ports = _until_listening(side, port)
        assert {ip for ip, _ in side_ports} == {"127.0.0.1"}  # the gateway's own address is that of this test
        folder = tmp_path / "s1" / "pki"

        def asked(path: str, *, cert: tuple[str, str] | None, method: str = "POST", to: int = port) -> str:
            context = ssl.create_default_context(cafile=ca)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # an outsider believes anybody
            if cert:
                context.load_cert_chain(*cert)
            try:
                with httpx.Client(verify=context) as client:
                    reply = client.request(method, f"https://127.0.0.1:{to}{path}", content=b"", timeout=10)
            except httpx.HTTPError:
                return "no connection"
            return f"{reply.status_code} {reply.text}"

        own = (str(folder / "site.pem"), str(folder / "site.key"))
        stranger_key = pki.new_key()
        root = pki.authority(stranger_key, "north", now=_now(), days=1)
        forged = pki.site_certificate(
            root, stranger_key, pki.request(stranger_key, "s1"), "s1", now=_now(), days=1
        )
        (tmp_path / "forged.pem").write_bytes(pki.pem(forged))
        (tmp_path / "forged.key").write_bytes(pki.key_pem(stranger_key))
        paths = [
            *(f"/v1/fleet/{verb}" for verb in (*VERBS, "register-node", "unregister-node")),
            *("/v1/control/list-runs", "/v1/control/start-run", "/v1/control/register-node"),
            *("/v1/runtime/acquire-task", "/v1/runtime/pull-task-input", "/docs", "/openapi.json", "/"),
        ]
        for path in paths:
            assert asked(path, cert=None) == "no connection"
            assert (
                asked(path, cert=(str(tmp_path / "forged.pem"), str(tmp_path / "forged.key")))
                == "no connection"
            )
            # with a site's own certificate, but not its node key, nothing either
            assert asked(path, cert=own) == "403 refused"
            assert asked(path, cert=own, method="GET") == "403 refused"
        for _, inside in side_ports - {("127.0.0.1", port)}:
            for path in paths:
                assert asked(path, cert=None, to=inside) == "no connection", path


def _until_listening(side: links.Side, port: int) -> set[tuple[str, int]]:
    limit = time.monotonic() + 60
    while ("127.0.0.1", port) not in (found := listening(side)):
        assert time.monotonic() < limit, side.logs()
        time.sleep(0.2)
    return found


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def test_a_killed_link_takes_its_children_with_it_and_the_next_one_stops_its_run(tmp_path: Path) -> None:
    coordinator, _ = started(tmp_path, 3)
    with links.hub(tmp_path, coordinator.port) as side:
        side.until("ready")
        children = psutil.Process(side.process.pid).children(recursive=True)
        assert len(children) >= 2
        os.kill(side.process.pid, signal.SIGKILL)
        gone, alive = psutil.wait_procs(children, timeout=60)
        assert alive == [] and len(gone) == len(children)
    with links.hub(tmp_path, coordinator.port) as side:
        side.until("ready")
        with closing(sqlite3.connect(tmp_path / "hub" / "link.db")) as link:
            found = link.execute("SELECT sub_status FROM task ORDER BY pending_at").fetchall()
        # a site that has half a message of the killed link would wait for the rest while that run goes on
        assert [status for (status,) in found] == ["stopped", ""]
