"""Updates for tests, made as a site makes them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federated.admit import Expected, Member
from federated.layout import Array, layout_of
from federated.packing import pack
from federated.update import Statement, sealed_update

LAYOUT = layout_of({"a.lora_A": (4, 60), "a.lora_B": (30, 4)})
EXPECTED = Expected(
    federation="f" * 64, round=3, parent="a" * 64, packing="i8", layout=LAYOUT, bound=1.0
)  # fmt: skip
KEYS = {
    name: Ed25519PrivateKey.from_private_bytes(bytes([at]) * 32) for at, name in enumerate(["north", "south"])
}
MEMBERS = {
    name: Member(key=key.public_key().public_bytes_raw(), units=100) for name, key in KEYS.items()
}  # fmt: skip


def change(seed: int = 0, norm: float = 0.5) -> Array:
    """A random change of the given norm."""
    drawn = np.random.default_rng(seed).normal(size=LAYOUT.values).astype(np.float32)
    return drawn * np.float32(norm / np.linalg.norm(drawn))


def update(body: bytes | None = None, *, signer: str = "north", **said: Any) -> bytes:
    """A right update of north's in round 3, but for what is `said` otherwise."""
    body = pack(change(), "i8") if body is None else body
    statement = Statement(
        federation="f" * 64,
        round=3,
        site="north",
        parent="a" * 64,
        packing="i8",
        units=80,
        loss=1_234_567,
        body=hashlib.sha256(body).hexdigest(),
    )
    return sealed_update(replace(statement, **said), body, KEYS[signer].sign)
