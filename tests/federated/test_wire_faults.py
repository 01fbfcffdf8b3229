"""Wrong updates over the wire: real links, one site lies in another way each round; the others finish."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_links import started
from world import LAYOUT, key

from federated import checkpoint
from federated.flower.frames import Ends, Frame
from federated.layout import Array
from federated.packing import pack, unpack
from federated.update import Statement, opened_update, sealed_update

pytestmark = pytest.mark.slow

LIAR = 4
ROUNDS = 9


def changed(statement: Statement, body: bytes, signer: int = LIAR, **said: Any) -> bytes:
    """The update that somebody signs who sends other numbers, or says something else."""
    told = replace(statement, body=hashlib.sha256(body).hexdigest(), **said)
    return sealed_update(told, body, key(signer).sign)


def numbers(body: bytes) -> Array:
    """The values of an f32 body."""
    return np.frombuffer(body, "<f4").astype(np.float32)


class Liar:
    """The line of a site's worker; what the worker answers leaves as a lie."""

    carried: frozenset[str] = frozenset()

    def __init__(self, line: Ends) -> None:
        self.line = line
        self.first = b""
        self.lies: dict[int, Callable[[Statement, bytes], bytes]] = {
            2: lambda said, body: changed(said, pack(numbers(body), "f32")[:-4] + b"\x00\x00\xc0\x7f"),  # NaN
            3: lambda said, body: changed(said, pack(1e6 * numbers(body), "f32")),
            4: lambda said, body: changed(said, body + bytes(4)),  # another shape
            5: lambda said, body: self.first,  # replayed
            6: lambda said, body: changed(said, body, signer=1),  # another site's key
            7: lambda said, body: _unsigned(changed(said, body)),
            8: lambda said, body: changed(said, body, units=10_000),
            9: lambda said, body: changed(said, pack(-numbers(body), "f32")),
        }

    def send(self, what: str, body: bytes = b"", **head: Any) -> None:
        """Send a lie in the rounds that have one."""
        if what == "answer" and body:
            said, values, _ = opened_update(body)
            self.first = self.first or body
            lie = self.lies.get(said.round)
            body = lie(said, bytes(values)) if lie else body
        self.line.send(what, body, **head)

    def receive(self, timeout: float | None = None) -> Frame | None:
        """As it is."""
        return self.line.receive(timeout)


def _unsigned(content: bytes) -> bytes:
    length = int.from_bytes(content[:4], "big")
    return content[: 4 + length] + bytes(64) + content[68 + length :]


def test_each_lie_is_refused_by_name_and_the_others_finish(tmp_path: Path) -> None:
    hub, sites = started(
        tmp_path, 4, count=ROUNDS, quorum=3, deadline_minutes=0.1, packing="f32", rule="median"
    )
    with ExitStack() as running:
        running.enter_context(hub.running())
        for name, site in sites.items():
            if name != f"s{LIAR}":
                running.enter_context(site.running())
        running.enter_context(sites[f"s{LIAR}"].running(Liar))
        last = hub.until(ROUNDS, 240)
    wrong = {number: hub.record(number).refused.get(f"s{LIAR}") for number in range(2, ROUNDS)}  # type: ignore[union-attr]
    assert wrong[2] == "values" and wrong[3] == "norm" and wrong[4] == "length" and wrong[8] == "units"
    # What the site may not have sent itself does not count as its answer; it is named and the round goes on.
    told = {(one["round"], one["reason"]) for one in hub.told if one["what"] == "refused"}
    assert {(5, "round"), (6, "forged"), (7, "forged")} <= told
    assert wrong[5] == wrong[6] == wrong[7] == "late"
    # A flipped sign passes the gate: the median holds it. The adapter moves as the honest sites say.
    assert f"s{LIAR}" in last.updates
    honest = [
        0.1 * np.random.default_rng([number, ROUNDS]).normal(size=LAYOUT.values).astype(np.float32)
        for number in (1, 2, 3)
    ]
    content = (checkpoint.folder_of(hub.course.home, ROUNDS) / "change").read_bytes()
    moved = unpack(content, LAYOUT.values, "f32")
    assert (moved <= np.max(honest, axis=0) + 1e-6).all() and (moved >= np.min(honest, axis=0) - 1e-6).all()
