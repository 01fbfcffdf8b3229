"""What a site may send that is wrong, and the code each is refused with."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federated.description import Federation
from federated.packing import pack, unpack
from federated.update import Statement, opened_update, sealed_update

Lie = Literal[
    "values", "norm", "length", "forged", "unsigned", "units", "parent", "federation", "packing", "body",
    "stranger", "malformed", "round", "flipped", "second",
]  # fmt: skip
LIES: tuple[Lie, ...] = get_args(Lie)
_NAN = {"f32": b"\x00\x00\xc0\x7f", "f16": b"\x00\x7e"}


def signed(statement: Statement, body: bytes, signer: Ed25519PrivateKey, **said: Any) -> bytes:
    """The update of who sends another body, or says something else."""
    told = replace(statement, body=hashlib.sha256(body).hexdigest(), **said)
    return sealed_update(told, body, signer.sign)


def told_lie(
    lie: Lie, honest: bytes, own: Ed25519PrivateKey, federation: Federation, draw: random.Random
) -> tuple[bytes, str | None]:
    """(what is sent instead, the code it is refused with); None where it may count."""
    statement, packed, _ = opened_update(honest)
    body, rounds = bytes(packed), federation.rounds
    values = unpack(body, _values(body, rounds.packing), rounds.packing)
    if lie == "values":
        broken = b"\x00\x00\xc0\x7f" + body[4:] if rounds.packing == "i8" else body
        if rounds.packing != "i8":
            last = _NAN[rounds.packing]
            broken = body[: -len(last)] + last
        return signed(statement, broken, own), "values"
    if lie == "norm":
        size = float(np.linalg.norm(values.astype(float)))
        return signed(
            statement, pack(values * np.float32(3 * rounds.clip_bound / size), rounds.packing), own
        ), "norm"
    if lie == "length":
        return signed(statement, body + bytes(draw.randint(1, 9)), own), "length"
    if lie == "forged":
        return signed(statement, body, Ed25519PrivateKey.generate()), "forged"
    if lie == "unsigned":
        return _with_signature(honest, bytes(64)), "forged"
    if lie == "units":
        return signed(statement, body, own, units=draw.choice([0, -5, 101, 10**9])), "units"
    if lie == "parent":
        return signed(statement, body, own, parent="e" * 64), "parent"
    if lie == "federation":
        return signed(statement, body, own, federation="e" * 64), "federation"
    if lie == "packing":
        other = next(one for one in ("f32", "f16") if one != rounds.packing)
        return signed(statement, body, own, packing=other), "packing"
    if lie == "body":
        return honest[:-1] + bytes([honest[-1] ^ 1]), "body"
    if lie == "stranger":
        return signed(statement, body, own, site="nobody"), "stranger"
    if lie == "malformed":
        return honest[: draw.randint(0, 60)], "malformed"
    if lie == "round":
        return signed(statement, body, own, round=statement.round + draw.choice([-1, 1])), "round"
    if lie == "flipped":  # nobody can tell: robust rules are for this
        return signed(statement, pack(-values, rounds.packing), own), None
    return signed(statement, pack(np.float32(0.5) * values, rounds.packing), own), None  # a second answer


def _with_signature(content: bytes, signature: bytes) -> bytes:
    length = int.from_bytes(content[:4], "big")
    return content[: 4 + length] + signature + content[68 + length :]


def _values(body: bytes, packing: str) -> int:
    from world import LAYOUT

    assert body and packing
    return LAYOUT.values
