"""A site's link: sidecar, SuperNode, and the tasks that arrive; carries frames for the worker.

    python -m federated.flower.site_link FOLDER https://GATEWAY:PORT FAB_SHA256 FD

To the worker: "asked" with what the coordinator sent; "process" of a start or an end; "refused" with what
keeps this site from its gateway.
From the worker: {"what": "answer"} with a body or a reason, once for each "asked"; {"what": "stop"} ends.
"""

from __future__ import annotations

import json
import secrets
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from federated import calling
from federated.flower import resident
from federated.flower.children import Children, free_port
from federated.flower.frames import Line
from federated.flower.resident import Runtime, Served

_LOOK, _SELDOM = 0.05, 5.0


def start(folder: Path, gateway: str, pinned: str, line: Line) -> tuple[Children, Runtime]:
    """Start sidecar and SuperNode."""
    resident.ask_sooner()
    secret = folder / "node.secret"
    secret.touch(mode=0o600)
    secret.write_text(secrets.token_hex(32))
    doctor = _Doctor(folder=folder, gateway=gateway.removeprefix("https://"), line=line)

    def told(name: str, what: str) -> None:
        line.send("process", name=name, state=what)
        if what != "started":
            doctor.look()

    children = Children(folder=folder, told=told)
    side, port = free_port(), free_port()
    children.add(
        "sidecar",
        [sys.executable, "-m", "federated.flower.sidecar", str(folder), str(side), gateway],
        line=lambda said: _sidecar_said(doctor, said),
    )
    children.add(
        "supernode",
        [
            *(sys.executable, "-m", "federated.flower.node", pinned, "--"),
            *(
                "--root-certificates",
                str(folder / "pki" / "loopback-ca.crt"),
                "--superlink",
                f"127.0.0.1:{side}",
            ),
            *("--auth-supernode-private-key", str(folder / "pki" / "node")),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--isolation", "process", "--superexec-auth-secret-file", str(secret)),
        ],
    )
    return children, Runtime(address=f"127.0.0.1:{port}", authority=None, secret=secret.read_bytes().strip())


def main() -> int:
    """Serve the worker until it says stop or is gone."""
    folder, gateway, pinned = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    line = Line(socket.socket(fileno=int(sys.argv[4])))
    children, runtime = start(folder, gateway, pinned, line)
    over = threading.Event()
    waiting: list[Served] = []
    tasks = resident.taking(runtime)

    def listen() -> None:
        try:
            while (frame := line.receive()) is not None and frame.what != "stop":
                if frame.what == "answer" and waiting:
                    head = {"reason": str(frame.head.get("reason", "")), "round": int(frame.head["round"])}
                    waiting.pop().answer(resident.packed(head, frame.body))
        finally:
            over.set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        while not over.wait(_LOOK):
            if waiting:
                continue
            try:
                token = resident.acquire(tasks, "flwr-clientapp")
            except (httpx.HTTPError, OSError):
                time.sleep(0.5)  # the node is starting
                continue
            if not token:
                continue
            asked = resident.served(runtime, token)
            try:
                head, body = resident.unpacked(asked.message.content)
            except (ValueError, KeyError):
                asked.answer(resident.packed({"reason": "malformed", "round": 0}, b""))
                continue
            waiting.append(asked)
            line.send("asked", body, head={key: _plain(value) for key, value in head.items()})
    finally:
        children.end()
    return 0


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


@dataclass
class _Doctor:
    """Finds out why the gateway cannot be had, which Flower does not say, and tells the worker."""

    folder: Path
    gateway: str
    line: Line
    _asked: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> None:
        """Look in the background, unless that was done just now."""
        with self._lock:
            if time.monotonic() - self._asked < _SELDOM:
                return
            self._asked = time.monotonic()
        threading.Thread(target=self._tell, daemon=True).start()

    def _tell(self) -> None:
        if code := calling.trouble(self.folder / "pki", self.gateway):
            with suppress(OSError):  # the worker is gone
                self.line.send("refused", reason=code)


def _sidecar_said(doctor: _Doctor, said: str) -> None:
    try:
        reason = str(json.loads(said)["refused"])
    except (ValueError, KeyError, TypeError):
        return
    if reason == "unreachable":
        doctor.look()
    else:
        doctor.line.send("refused", reason=reason)


if __name__ == "__main__":
    sys.exit(main())
