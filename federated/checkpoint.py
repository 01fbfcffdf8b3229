"""What stays of each round at the coordinator: enough to go on after a crash, and to show what was done.

    rounds/0007/round.json      the round while it runs (rounds.as_json)
    rounds/0007/updates/SITE    an admitted update, as the site signed it
    rounds/0007/change          the packed change of the adapter, as all sites get it
    rounds/0007/state           float32: the adapter, what packing left over, FedAdam's two moments
    rounds/0007/record.json     what was averaged, by canonical JSON, with the coordinator's signature

A round is committed by its record, written last. What is there without a record is made again from the
updates, and gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from appliance.core.errors import DataRejected
from appliance.core.files import write_bytes, write_json
from appliance.core.reading import open_reading, read_bytes, read_text
from appliance.security import canonical
from appliance.security.trust.identity import verify
from federated.aggregate import Packed
from federated.layout import Array, Layout, vector_sha256
from federated.packing import Packing, part, unpack_part
from federated.rounds import Round, as_json, round_of
from federated.server_step import Moments
from federated.update import Statement, opened_update

PURPOSE = b"cloister/f1/round\x00"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A committed round.

    `weights` are the units each site counted for, `updates` digests of their bodies, `refused` codes;
    `losses` what sites told of the round's first adapter, in millionths (-1: nothing); `parent`, `adapter`,
    `change` and `state` are digests; `lost` is the share of the products that was cut off, in millionths.
    """

    round: int
    federation: str
    parent: str
    adapter: str
    change: str
    state: str
    rule: str
    weights: dict[str, int]
    updates: dict[str, str]
    refused: dict[str, str]
    losses: dict[str, int]
    lost: int


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a federation stands after a round: all vectors have the layout's length."""

    adapter: Array
    left: Array
    moments: Moments


def start(layout: Layout, adapter: Array) -> State:
    """Before the first round."""
    return State(
        adapter=adapter,
        left=np.zeros_like(adapter),
        moments=Moments(first=np.zeros_like(adapter), second=np.zeros_like(adapter)),
    )


def folder_of(home: Path, number: int) -> Path:
    """Where round `number` lies."""
    return home / "rounds" / f"{number:04}"


def keep_round(home: Path, state: Round) -> None:
    """Write the state of a round that runs."""
    folder = folder_of(home, state.number)
    (folder / "updates").mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "round.json", json.dumps(as_json(state)).encode())  # written with every update


def kept_round(home: Path, number: int) -> Round | None:
    """The state of a round that began."""
    path = folder_of(home, number) / "round.json"
    return round_of(json.loads(read_text(path))) if path.exists() else None


def keep_update(home: Path, number: int, site: str, content: bytes) -> None:
    """Store an admitted update."""
    write_bytes(folder_of(home, number) / "updates" / site, content)


def kept_update(home: Path, number: int, site: str, weight: int, packing: Packing) -> Packed:
    """An admitted update, to be read slice by slice."""
    path = folder_of(home, number) / "updates" / site
    with open_reading(path) as stream:
        length = int.from_bytes(stream.read(4), "big")
        stream.seek(68 + length)
        begin, head = 68 + length, stream.read(4)

    def read(first: int, last: int) -> Array:
        from_byte, to_byte = part(packing, first, last)
        with open_reading(path) as stream:
            stream.seek(begin + from_byte)
            return unpack_part(head, stream.read(to_byte - from_byte), last - first, packing)

    return Packed(site=site, weight=weight, read=read)


def statement_of(home: Path, number: int, site: str) -> Statement:
    """What an admitted update states."""
    statement, _, _ = opened_update(read_bytes(folder_of(home, number) / "updates" / site))
    return statement


def commit(
    home: Path, layout: Layout, state: State, change: bytes, record: Record, sign: Callable[[bytes], bytes]
) -> None:
    """Write a finished round; after this it is done for ever."""
    folder = folder_of(home, record.round)
    write_bytes(folder / "change", change)
    write_bytes(folder / "state", _bytes(state))
    said = canonical.encode(asdict(record))
    write_json(folder / "record.json", {"record": said.decode(), "signature": sign(PURPOSE + said).hex()})
    shutil.rmtree(folder / "updates", ignore_errors=True)


def read_record(home: Path, number: int, key: str) -> Record | None:
    """The record of a committed round; None where it is not committed.

    Raises:
        DataRejected: it was altered, or another key than `key` signed it.
    """
    path = folder_of(home, number) / "record.json"
    if not path.exists():
        return None
    try:
        held = json.loads(read_text(path))
        said = held["record"].encode()
        if not verify(key, bytes.fromhex(held["signature"]), PURPOSE + said):
            raise ValueError("another signature")
        return Record(**canonical.decode(said))
    except (ValueError, KeyError, TypeError) as problem:
        raise _damaged(number, "record.json") from problem


def read_state(home: Path, layout: Layout, record: Record) -> State:
    """The vectors after a committed round.

    Raises:
        DataRejected: they are not the recorded ones.
    """
    content = read_bytes(folder_of(home, record.round) / "state")
    if hashlib.sha256(content).hexdigest() != record.state or len(content) != 16 * layout.values:
        raise _damaged(record.round, "state")
    adapter, left, first, second = np.frombuffer(content, "<f4").reshape(4, layout.values).astype(np.float32)
    if vector_sha256(layout, adapter) != record.adapter:
        raise _damaged(record.round, "state")
    return State(adapter=adapter, left=left, moments=Moments(first=first, second=second))


def state_sha256(state: State) -> str:
    """Hex digest of what `commit` writes for it."""
    return hashlib.sha256(_bytes(state)).hexdigest()


def committed(home: Path, key: str) -> Record | None:
    """The last committed round, with every one before it checked as a chain of parents.

    Raises:
        DataRejected: a record was altered, or does not follow from the one before it.
    """
    last: Record | None = None
    number = 1
    while record := read_record(home, number, key):
        if record.round != number or (last is not None and record.parent != last.adapter):
            raise _damaged(number, "record.json")
        last, number = record, number + 1
    return last


def _bytes(state: State) -> bytes:
    parts: list[Any] = [state.adapter, state.left, state.moments.first, state.moments.second]
    return np.concatenate(parts).astype("<f4").tobytes()


def _damaged(number: int, name: str) -> DataRejected:
    return DataRejected(
        f"rounds/{number:04}/{name} was altered.", "Restore the folder of the federation from a copy."
    )
