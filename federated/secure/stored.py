"""What a site keeps of secure rounds: its secrets, what it learnt, and what it answered.

    secure/state           secagg/state.py, with round keys and shares
    secure/vector          what training gave in the round under way; it is masked anew in each attempt
    secure/masked          the attempt whose masked vector left last, and its round
    secure/revealed        the last round that this site helped to open: it takes no part in it again
    secure/0000012.keys    the answer to a question of an attempt, after the SHA-256 of the question

All of it is written before an answer leaves. A change that was learnt is gone once its round was opened.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from appliance.core.errors import ConfigWrong
from appliance.core.files import write_private
from appliance.core.reading import read_bytes
from appliance.privacy.noise import Keystream
from federated.layout import Array
from federated.secagg import state as states
from federated.secagg.lattice import Lattice, encode
from federated.secagg.state import State

_KEPT = 4  # attempts


@dataclass(frozen=True, kw_only=True)
class Vector:
    """What a site gives to a round. `seed` draws the rounding, which is the same in each attempt."""

    round: int
    parent: str
    units: int
    loss: int
    seed: str
    change: Array

    def integers(self, federation: str, lattice: Lattice, weight: int) -> NDArray[np.int64]:
        """The change on the lattice of the agreement with this digest, clipped and weighted.

        Raises:
            DataRejected: it is not finite, or of another length.
        """
        key = hashlib.sha256(bytes.fromhex(self.seed) + federation.encode()).digest()
        return encode(self.change, lattice, stream=Keystream(key)).integers * weight


def seed() -> str:
    """A fresh one."""
    return os.urandom(32).hex()


def state_of(home: Path, federation: str, site: str) -> State:
    """The secrets of a site under the agreement with this digest; fresh ones under a new agreement.

    Damaged ones are gone, and with them the attempt under way.
    """
    path = home / "secure" / "state"
    if path.exists():
        try:
            found = states.state_of(read_bytes(path))
        except ConfigWrong:
            return states.fresh(federation, site)
        if (found.federation, found.site) == (federation, site):
            return found
    return states.fresh(federation, site)


def keep_state(home: Path, state: State) -> None:
    """Write them."""
    _write(home, "state", states.to_bytes(state))


def vector(home: Path) -> Vector | None:
    """What was learnt in the newest round that is not opened."""
    path = home / "secure" / "vector"
    if not path.exists():
        return None
    head, _, body = read_bytes(path).partition(b"\n")
    return Vector(**json.loads(head), change=np.frombuffer(body, "<f4").astype(np.float32))


def keep_vector(home: Path, one: Vector) -> None:
    """Write it over the one before."""
    head = {name: value for name, value in vars(one).items() if name != "change"}
    _write(home, "vector", json.dumps(head).encode() + b"\n" + one.change.astype("<f4").tobytes())


@dataclass(frozen=True, kw_only=True)
class Left:
    """The attempt whose masked vector left last, and the round it was of."""

    attempt: int
    round: int


def left(home: Path) -> Left | None:
    """The newest."""
    path = home / "secure" / "masked"
    return Left(**json.loads(read_bytes(path))) if path.exists() else None


def keep_left(home: Path, one: Left) -> None:
    """Write it."""
    _write(home, "masked", json.dumps(asdict(one)).encode())


def revealed(home: Path) -> int:
    """The last round that this site helped to open; 0 for none."""
    path = home / "secure" / "revealed"
    return int(read_bytes(path)) if path.exists() else 0


def keep_revealed(home: Path, number: int) -> None:
    """From now on this site takes no part in that round, and what it learnt in it is gone."""
    _write(home, "revealed", str(max(number, revealed(home))).encode())
    (home / "secure" / "vector").unlink(missing_ok=True)


def answered(home: Path, attempt: int, step: str, question: bytes) -> bytes | None:
    """What was answered to this very question."""
    path = _answer(home, attempt, step)
    if not path.exists():
        return None
    content = read_bytes(path)
    return content[32:] if content[:32] == hashlib.sha256(question).digest() else None


def keep_answer(home: Path, attempt: int, step: str, question: bytes, content: bytes) -> None:
    """Write an answer, and take away those of long ago."""
    path = _answer(home, attempt, step)
    _write(home, path.name, hashlib.sha256(question).digest() + content)
    attempts = sorted({one.stem for one in path.parent.glob("*.*") if one.stem.isdigit()}, key=int)
    for old in attempts[:-_KEPT]:
        for one in path.parent.glob(f"{old}.*"):
            one.unlink()


def _answer(home: Path, attempt: int, step: str) -> Path:
    return home / "secure" / f"{attempt:07}.{step}"


def _write(home: Path, name: str, content: bytes) -> None:
    (home / "secure").mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(home / "secure" / name, content)
