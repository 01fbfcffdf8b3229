"""The coordinator's link: SuperLink, gateway, and the task of the rounds; carries frames for the worker.

    python -m federated.flower.hub_link FOLDER HOST PORT FD

From the worker: {"what": "ask", "ref", "sites"} with a body sends it to those sites; {"what": "stop"} ends.
To the worker: "ready" with the sites that are known; "there" with the names online; "answer" with ref, site
and body, or with ref, site and a reason; "refused" by the gateway; "process" of a start or an end.
The names of sites are those of the node keys in the signed agreement, never what a message says.
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
from typing import Any

import httpx
from flwr.app import Message, RecordDict
from flwr.common.constant import Status
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
)
from flwr.supercore.fab import Fab

from federated import description
from federated.flower import door, resident
from federated.flower.children import Children, free_port
from federated.flower.fab import fab, fab_sha256
from federated.flower.frames import Frame, Line
from federated.flower.resident import Grid, Runtime

_LOOK, _PATIENCE, _TTL = 0.1, 60.0, 86400.0


@dataclass
class Hub:
    """What runs, and which messages wait for an answer: message id to (ref, site)."""

    folder: Path
    line: Line
    children: Children
    port: int
    runtime: Runtime
    sites: dict[int, str] = field(default_factory=dict)
    waiting: dict[str, tuple[int, str]] = field(default_factory=dict)
    grid: Grid | None = None

    def control(self) -> Any:
        """A client of the SuperLink's control interface, on loopback."""
        from flwr.cli.typing import SuperLinkConnection
        from flwr.cli.utils import init_http_client_from_connection

        return init_http_client_from_connection(
            SuperLinkConnection(
                name="hub",
                address=self.runtime.address,
                root_certificates=str(self.folder / "door" / "ca.crt"),
            )
        )


def start(folder: Path, host: str, port: int, line: Line) -> Hub:
    """Start SuperLink and gateway and take the task of a new run.

    Raises:
        TimeoutError: the SuperLink did not come up.
    """
    resident.ask_sooner()
    secret = folder / "link.secret"
    secret.touch(mode=0o600)
    secret.write_text(secrets.token_hex(32))
    door.make(folder)
    door.show(folder)
    link, own = free_port(), folder / "door"
    children = Children(folder=folder, told=lambda name, what: line.send("process", name=name, state=what))
    children.add(
        "superlink",
        [
            *(sys.executable, "-m", "federated.flower.door", str(folder), "--"),
            *("--ssl-certfile", str(own / "server.pem"), "--ssl-keyfile", str(own / "server.key")),
            *("--ssl-ca-certfile", str(own / "ca.crt"), "--enable-supernode-auth"),
            *("--database", str(folder / "link.db"), "--disable-runtime-dependency-installation"),
            *("--isolation", "process", "--superexec-auth-secret-file", str(secret)),
            *("--host", "127.0.0.1", "--port", str(link)),
        ],
    )
    runtime = Runtime(
        address=f"127.0.0.1:{link}", authority=own / "ca.crt", secret=secret.read_bytes().strip()
    )
    hub = Hub(folder=folder, line=line, children=children, port=port, runtime=runtime)
    _wait(hub)
    register(hub)
    begin_run(hub)
    children.add(
        "gateway",
        [sys.executable, "-m", "federated.flower.gateway", str(folder), host, str(port), str(link)],
        line=lambda said: _gateway_said(line, said),
    )
    line.send("ready", sites=sorted(hub.sites.values()))
    return hub


def register(hub: Hub) -> None:
    """Make the node keys of all sites that are in known to the SuperLink."""
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    federation = description.parsed((hub.folder / "agreement.toml").read_bytes())
    client = hub.control()
    try:
        keys = {
            public_key_to_bytes(load_ssh_public_key(site.node.encode())): site.name  # type: ignore[arg-type]
            for site in federation.active()
        }
        known = {
            bytes(node.public_key): node.node_id for node in client.ListNodes(ListNodesRequest()).nodes_info
        }
        for key, name in keys.items():
            if key not in known:
                known[key] = client.RegisterNode(RegisterNodeRequest(public_key=key, name=name)).node_id
        hub.sites = {known[key]: name for key, name in keys.items()}
    finally:
        client.close()


def begin_run(hub: Hub) -> None:
    """Start a run of the pinned app and take its server task: one run lasts until the link ends.

    What a killed link left is stopped: Flower counts it as running for another minute, in which a site waits
    for the rest of a message that nobody sends any more.
    """
    client = hub.control()
    try:
        for run in client.ListRuns(ListRunsRequest()).run_dict.values():
            if run.status.status != Status.FINISHED:
                with suppress(httpx.HTTPStatusError):  # it has ended meanwhile
                    client.StopRun(StopRunRequest(run_id=run.run_id))
        made = Fab(fab_sha256(), fab(), {})
        client.StartRun(StartRunRequest(fab=fab_to_proto(made)))
    finally:
        client.close()
    tasks, limit = resident.taking(hub.runtime), time.monotonic() + _PATIENCE
    try:
        while time.monotonic() < limit:
            with suppress(httpx.HTTPError):
                if token := resident.acquire(tasks, "flwr-serverapp"):
                    hub.grid = resident.grid(hub.runtime, token)
                    return
            time.sleep(_LOOK)
    finally:
        tasks.close()
    raise TimeoutError("no task")


def ask(hub: Hub, frame: Frame) -> None:
    """Send what the worker asks to the sites it names, in one call: Flower takes equal contents once."""
    assert hub.grid is not None  # noqa: S101
    nodes = {name: node for node, name in hub.sites.items()}
    ref, head, sites = int(frame.head["ref"]), frame.head["head"], frame.head["sites"]
    messages = [
        Message(
            resident.packed(head, frame.body),
            dst_node_id=nodes[site],
            message_type="train",
            ttl=_TTL,
            group_id=str(head.get("round", 0)),
        )
        for site in sites
    ]
    for site, sent in zip(sites, hub.grid.grid.push_messages(messages), strict=True):
        if sent:
            hub.waiting[sent] = (ref, site)


def collect(hub: Hub) -> None:
    """Pass on what has come in."""
    if not hub.waiting or hub.grid is None:
        return
    for message in hub.grid.grid.pull_messages(list(hub.waiting)):
        ref, site = hub.waiting.pop(message.metadata.reply_to_message_id, (0, ""))
        if not site:
            continue
        if message.has_error():
            hub.line.send("answer", ref=ref, site=site, reason=f"flower-{message.error.code}")
            continue
        try:
            head, body = resident.unpacked(message.content or RecordDict())
            reason = str(head.get("reason", ""))[:40]
        except (ValueError, KeyError):
            head, body, reason = {}, b"", "malformed"
        hub.line.send("answer", body, ref=ref, site=site, reason=reason, round=int(head.get("round", 0)))


def main() -> int:
    """Serve the worker until it says stop or is gone."""
    folder, host, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    line = Line(socket.socket(fileno=int(sys.argv[4])))
    hub = start(folder, host, port, line)
    over = threading.Event()

    def listen() -> None:
        try:
            while (frame := line.receive()) is not None and frame.what != "stop":
                if frame.what == "ask":
                    ask(hub, frame)
                elif frame.what == "register":
                    register(hub)
        finally:
            over.set()

    threading.Thread(target=listen, daemon=True).start()
    there: list[str] = []
    try:
        while not over.wait(_LOOK):
            collect(hub)
            now = sorted(hub.sites[node] for node in _online(hub) if node in hub.sites)
            if now != there:
                there = now
                line.send("there", sites=there)
    finally:
        if hub.grid:
            hub.grid.close()
        hub.children.end()
    return 0


def _online(hub: Hub) -> list[int]:
    assert hub.grid is not None  # noqa: S101
    return list(hub.grid.grid.get_node_ids())


def _wait(hub: Hub) -> None:
    limit = time.monotonic() + _PATIENCE
    while time.monotonic() < limit:
        try:
            httpx.get(f"https://{hub.runtime.address}/openapi.json", verify=door.caller(hub.folder))
        except httpx.HTTPError:
            time.sleep(_LOOK)
            continue
        return
    raise TimeoutError("the SuperLink did not come up")


def _gateway_said(line: Line, said: str) -> None:
    try:
        held = json.loads(said)
        place, site = str(held.get("from", "")), held.get("site")
        line.send("refused", reason=str(held["refused"]), place=place, site=site)
    except (ValueError, KeyError, TypeError):
        return


if __name__ == "__main__":
    sys.exit(main())
