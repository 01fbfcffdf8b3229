"""Who passes the gateway, reason by reason, and which app a site's node takes."""

from __future__ import annotations

import base64
import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from world import agreement

from federated import description, pki
from federated.flower import gateway
from federated.flower.gateway import VERBS, Doorman

PULL = "/v1/fleet/pull-messages"


class Gate:
    """A doorman of three sites, of which the first has a real node key and any certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder, key = folder, pki.new_key()
        self.certificate = b"der of s1"
        self.header = self.headed(key)
        self.node = pki.node_key(key)[1]
        self.write()
        self.doorman = Doorman(folder=folder)

    @staticmethod
    def headed(key: Any) -> str:
        """A node key as Flower sends it."""
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(pem).decode()

    def write(self, state: str = "in") -> None:
        """Write the agreement with the first site in this state."""
        federation = agreement(3)
        first = federation.sites[0].model_copy(
            update={
                "node": self.node,
                "certificate": hashlib.sha256(self.certificate).hexdigest(),
                "state": state,
            }
        )
        changed = federation.model_copy(update={"sites": [first, *federation.sites[1:]]})
        path = self.folder / "agreement.toml"
        stamp = path.stat().st_mtime_ns if path.exists() else 0
        path.write_bytes(description.written(changed))
        os.utime(path, ns=(stamp + 10**9, stamp + 10**9))

    def reason(self, **changed: Any) -> str | None:
        """Why a right request of the first site, but for what is `changed`, may not pass."""
        right = {"path": PULL, "method": "POST", "certificate": self.certificate, "node": self.header}
        return self.doorman.reason(**(right | changed))


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def test_a_right_request_passes(gate: Gate) -> None:
    assert [gate.reason(path=f"/v1/fleet/{verb}") for verb in VERBS] == [None] * len(VERBS)


@pytest.mark.parametrize(
    ("reason", "changed"),
    [
        ("certificate", {"certificate": None}),
        ("unknown-certificate", {"certificate": b"of another"}),
        ("verb", {"method": "GET"}),
        ("verb", {"path": "/v1/fleet/register-node"}),
        ("verb", {"path": "/v1/control/start-run"}),
        ("verb", {"path": PULL + "/"}),
        ("node-key", {"node": None}),
        ("node-key", {"node": "rubbish"}),
        ("node-key", {"node": Gate.headed(pki.new_key())}),
    ],
)
def test_each_reason(gate: Gate, reason: str, changed: dict[str, Any]) -> None:
    assert gate.reason(**changed) == reason


@pytest.mark.parametrize("state", ["left", "dropped", "revoked"])
def test_who_is_out_is_out_at_once(gate: Gate, state: str) -> None:
    assert gate.reason() is None
    gate.write(state)
    assert gate.reason() == state


def test_one_site_cannot_take_all_the_requests(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.time, "monotonic", lambda: 1000.0)
    found = [gate.reason() for _ in range(int(gateway.BURST) + 1)]
    assert found == [None] * int(gateway.BURST) + ["rate"]
    monkeypatch.setattr(gateway.time, "monotonic", lambda: 1001.0)
    assert gate.reason() is None


@pytest.mark.parametrize(
    ("ahead", "code"),
    [(10, "clock-ahead"), (4, None), (0, None), (-200, None), (-400, "clock-behind")],
)
def test_a_node_whose_signature_is_of_another_time_is_named(ahead: int, code: str | None) -> None:
    signed = datetime(2026, 3, 1, 12, tzinfo=UTC)
    now = (signed - timedelta(seconds=ahead)).timestamp()
    assert gateway.clock(signed.isoformat(), now) == code
    assert gateway.clock(None, now) is None and gateway.clock("yesterday", now) is None


@pytest.mark.parametrize("own", [True, False])
def test_a_node_takes_the_pinned_app_only(monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    from flwr.supercore.fab import Fab

    from federated.flower import node

    content = b"the app" if own else b"another app"
    seen: list[Any] = []

    def pull(*, get_fab: Any, trusted_entities: Any, **rest: Any) -> None:
        fab = get_fab("digest", 1)
        seen.append(bool(trusted_entities) and bool(fab.verifications["valid_license"]))
        seen.append(node.loop._verify_fab(fab, trusted_entities))

    for name in ("_pull_and_store_message", "_verify_fab", "time"):
        monkeypatch.setattr(node.loop, name, getattr(node.loop, name))  # put back afterwards
    monkeypatch.setattr(node.loop, "_pull_and_store_message", pull)
    node.pin(hashlib.sha256(b"the app").hexdigest())
    pinned: Any = node.loop._pull_and_store_message
    pinned(state=None, get_fab=lambda digest, run: Fab("x", content, {}), trusted_entities=None)
    assert seen == [own, own]


@pytest.mark.parametrize("whole", [True, False])
def test_a_task_is_handed_out_when_its_message_is_whole(monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    """A round that was cut off leaves a message without content; the site's worker must not wait for it."""
    from federated.flower import node

    class State:
        """What a node keeps."""

        def __init__(self) -> None:
            self.tasks: list[dict[str, Any]] = []

        def create_task(self, **asked: Any) -> int:
            """Make one."""
            self.tasks.append(asked)
            return 7

    def pull(*, state: Any, **rest: Any) -> int | None:
        assert state.create_task(run_id=5) is not None
        return 5 if whole else None

    for name in ("_pull_and_store_message", "_verify_fab", "time"):
        monkeypatch.setattr(node.loop, name, getattr(node.loop, name))  # put back afterwards
    monkeypatch.setattr(node.loop, "_pull_and_store_message", pull)
    node.pin("digest")
    pinned: Any = node.loop._pull_and_store_message
    state = State()
    assert pinned(state=state, get_fab=None, trusted_entities=None) == (5 if whole else None)
    assert state.tasks == ([{"run_id": 5}] if whole else [])


@pytest.mark.parametrize("size", [0, 5, (4 << 20) + 1])
def test_messages_go_and_come_whole(size: int) -> None:
    from federated.flower import resident

    content = resident.packed({"round": 3, "agreement": b"a"}, b"x" * size)
    assert resident.unpacked(content) == ({"round": 3, "agreement": b"a"}, b"x" * size)
    with pytest.raises((ValueError, KeyError)):
        resident.unpacked(resident.RecordDict({"head": resident.ConfigRecord({"round": 3})}))
