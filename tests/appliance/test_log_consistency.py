"""A proof that the log only grew, checked elsewhere; and every lie that it must not let through."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core.db import reading, transaction
from appliance.core.errors import ConfigWrong, DataRejected, LogDamaged
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.log import consistency, merkle, witness
from appliance.security.log.checkpoint import Signer

KEY = Signer(name="cloister/st-anna", key=Ed25519PrivateKey.from_private_bytes(bytes(32)))
AT = datetime(2026, 11, 25, tzinfo=UTC)


def fill(home: Home, count: int) -> None:
    with transaction(home) as link:
        for number in range(count):
            audit.record(link, who="mira", what="test", target=str(number))


def prove(home: Home, path: Path, first: int, last: int | None = None) -> consistency.Proven:
    path.unlink(missing_ok=True)
    return consistency.prove(home, path, KEY, who="aude", clock=lambda: AT, first=first, last=last)


@pytest.fixture
def proof(home: Home, tmp_path: Path) -> Path:
    """From 7 entries, of which a checkpoint is held, to 12 and this proof's own."""
    fill(home, 6)
    held = witness.make(home, KEY, who="mira", clock=lambda: AT)
    (tmp_path / "held.note").write_bytes(held.note)
    fill(home, 5)
    prove(home, tmp_path / "proof.json", 7)
    return tmp_path / "proof.json"


def held(proof: Path) -> bytes:
    return proof.with_name("held.note").read_bytes()


def test_it_holds_elsewhere_with_the_key_alone(proof: Path) -> None:
    found = consistency.check(proof, KEY.public)
    assert (found.first, found.checkpoint.size, found.against) == (7, 13, "signed")
    found = consistency.check(proof, KEY.public, held=held(proof))
    assert found.against == "held" and found.checkpoint.origin == KEY.name
    assert proof.stat().st_mode & 0o777 == 0o600
    with pytest.raises(DataRejected):
        consistency.check(proof, bytes(32))


def test_every_pair_of_sizes(home: Home, tmp_path: Path) -> None:
    fill(home, 9)
    for first in range(1, 10):
        prove(home, tmp_path / "x", first)
        told = json.loads((tmp_path / "x").read_text())
        with reading(home) as link:
            rows = link.execute("SELECT entry FROM audit WHERE seq <= ? ORDER BY seq", (first,)).fetchall()
        leaves = [merkle.leaf_hash(row["entry"].encode()) for row in rows]
        found = consistency.check(tmp_path / "x", KEY.public)
        assert found.root == merkle.root(first, merkle.node_of(leaves)) and told["to"] == 9 + first
        assert found.against == "claimed"
    assert prove(home, tmp_path / "x", 4, 12).checkpoint.size == 12
    with pytest.raises(ConfigWrong, match="No checkpoint of 5"):
        prove(home, tmp_path / "x", 4, 5)
    for wrong in ((0, None), (99, None), (8, 3)):
        with pytest.raises(ConfigWrong):
            prove(home, tmp_path / "x", *wrong)


def test_a_log_that_was_rewritten_proves_nothing(home: Home, proof: Path, tmp_path: Path) -> None:
    """Another log of the same site, as somebody with its key would write one: shown by what was held."""
    from appliance.core.home import open_home

    other = open_home(tmp_path / "other")
    fill(other, 7)
    with transaction(other) as link:
        audit.record(link, who="mira", what="test", target="rewritten")
    prove(other, tmp_path / "lie.json", 7)
    with pytest.raises(LogDamaged, match="history was rewritten"):
        consistency.check(tmp_path / "lie.json", KEY.public, held=held(proof))
    with pytest.raises(ConfigWrong, match="of 7 entries"):
        prove(home, tmp_path / "five.json", 5)
        consistency.check(tmp_path / "five.json", KEY.public, held=held(proof))


def spoilt(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told, separators=(",", ":")) + "\n")
    return path


def test_no_part_of_it_can_be_changed(proof: Path) -> None:
    whole = proof.read_bytes()
    changes: list[Callable[[dict[str, Any]], Any]] = [
        lambda told: told["proof"].pop(),
        lambda told: told["proof"].append(told["proof"][0]),
        lambda told: told["proof"].reverse(),
        lambda told: told.update({"from": 6}),
        lambda told: told.update(to=12),
        lambda told: told.update(root=told["proof"][0]),
        lambda told: told.update(older=told["checkpoint"]),
        lambda told: told.update(checkpoint=told["older"]),
        lambda told: told.update(checkpoint=told["checkpoint"].replace("13", "14", 1)),
        lambda told: told.update(format="x"),
        lambda told: told.update(more=1),
        lambda told: told.update(proof=["x"]),
        lambda told: told.update(root="x"),
        lambda told: told.update({"from": "7"}),
    ]
    for number, change in enumerate(changes):
        proof.write_bytes(whole)
        with pytest.raises((LogDamaged, DataRejected, ConfigWrong)):
            consistency.check(spoilt(proof, change), KEY.public)
            pytest.fail(f"change {number}")
    for content in (b"", b"[]", b"{}", whole * 2, whole[:-1], b"[" * 50_000, b"x" * 70_000):
        proof.write_bytes(content)
        with pytest.raises(DataRejected):
            consistency.check(proof, KEY.public)


def test_a_root_that_nobody_signed_must_still_be_led_on_from(proof: Path) -> None:
    """Without any older note the proof itself must hold."""

    def change(told: dict[str, Any]) -> None:
        told["older"] = ""
        told["root"] = told["proof"][0]

    with pytest.raises(LogDamaged, match="does not begin"):
        consistency.check(spoilt(proof, change), KEY.public)
