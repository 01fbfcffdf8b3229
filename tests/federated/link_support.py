"""Real links for tests: a coordinator and sites with folders, keys and processes of their own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from world import agreement

from federated import description, pki
from federated.description import Federation
from federated.flower.children import free_port
from federated.flower.fab import fab_sha256
from federated.flower.frames import Frame, Line


@dataclass
class Side:
    """A link process and the worker's end of its line."""

    folder: Path
    process: subprocess.Popen[bytes]
    line: Line

    def until(self, what: str, seconds: float = 60.0, **head: Any) -> Frame:
        """The next frame of this kind with these fields; others are passed over."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            frame = self.line.receive(max(0.1, limit - time.monotonic()))
            assert frame is not None, f"the link ended: {self.logs()}"
            if frame.what == what and all(frame.head.get(key) == value for key, value in head.items()):
                return frame
        raise AssertionError(f"no {what}: {self.logs()}")

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in self.folder.glob("*.log"))


def prepare(root: Path, sites: int, **rounds: Any) -> tuple[Federation, int]:
    """Folders with keys and certificates for a hub and its sites, as enrolment makes them."""
    now, port = datetime.now(UTC), free_port()
    root_key = pki.new_key()
    authority = pki.authority(root_key, "north", now=now, days=90)
    hub = root / "hub" / "pki"
    hub.mkdir(parents=True)
    (hub / "ca.crt").write_bytes(pki.pem(authority))
    (root / "authority.key").write_bytes(pki.key_pem(root_key))
    for name in ("server",):
        key = pki.new_key()
        (hub / f"{name}.key").write_bytes(pki.key_pem(key))
        made = pki.server_certificate(
            authority, root_key, key.public_key(), ["127.0.0.1", "localhost"], now=now, days=90
        )
        (hub / f"{name}.pem").write_bytes(pki.pem(made))
    federation = agreement(sites, **rounds)
    members = []
    for site in federation.sites:
        folder = root / site.name / "pki"
        folder.mkdir(parents=True)
        key = pki.new_key()
        made = pki.site_certificate(
            authority, root_key, pki.request(key, site.name), site.name, now=now, days=90
        )
        (folder / "ca.crt").write_bytes(pki.pem(authority))
        (folder / "site.key").write_bytes(pki.key_pem(key))
        (folder / "site.pem").write_bytes(pki.pem(made))
        private, public = pki.node_key(pki.new_key())
        (folder / "node").write_bytes(private)
        own = pki.new_key()
        loopback = pki.authority(own, "loopback", now=now, days=90)
        side_key = pki.new_key()
        side = pki.server_certificate(loopback, own, side_key.public_key(), ["127.0.0.1"], now=now, days=90)
        (folder / "loopback-ca.crt").write_bytes(pki.pem(loopback))
        (folder / "loopback.key").write_bytes(pki.key_pem(side_key))
        (folder / "loopback.pem").write_bytes(pki.pem(side))
        members.append(site.model_copy(update={"node": public, "certificate": pki.fingerprint(made)}))
    federation = federation.model_copy(
        update={"created": now, "expires": now + timedelta(days=90)}
    ).model_copy(update={"sites": members, "code": federation.code.model_copy(update={"fab": fab_sha256()})})
    (root / "hub" / "agreement.toml").write_bytes(description.written(federation))
    return federation, port


@contextmanager
def hub(root: Path, port: int) -> Iterator[Side]:
    """The coordinator's link."""
    with _side(root / "hub", "hub_link", "127.0.0.1", str(port)) as side:
        yield side


@contextmanager
def site(root: Path, name: str, port: int) -> Iterator[Side]:
    """A site's link."""
    with _side(root / name, "site_link", f"https://127.0.0.1:{port}", fab_sha256()) as side:
        yield side


def kill_part(side: Side, module: str) -> None:
    """kill -9 of one process of a link, which starts it again."""
    for one in psutil.Process(side.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # others come and go
            if module in one.cmdline():
                one.kill()
                return
    raise AssertionError(f"{module} does not run")


@contextmanager
def _side(folder: Path, module: str, *more: str) -> Iterator[Side]:
    ours, theirs = socket.socketpair()
    with theirs, (folder / "link.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"federated.flower.{module}", str(folder), *more, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdout=log,
            stderr=log,
        )
    line = Line(ours)
    try:
        yield Side(folder=folder, process=process, line=line)
    finally:
        line.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
