"""What a round's messages hold beside the update: the request, whole or as the last round's change.

A site keeps the adapter of the round it answered last; if the coordinator's request goes on from there, the
packed change of that round is all that travels. A site that has another one says "behind" and gets it whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from appliance.core.files import write_bytes
from appliance.core.reading import read_bytes
from federated import checkpoint
from federated.course import Course
from federated.layout import Array, Layout, vector_sha256
from federated.packing import Packing, unpack
from federated.rounds import Round
from federated.seat import Request

BEHIND = "behind"


def asked(
    course: Course, state: Round, agreement: bytes, signature: bytes, *, whole: bool
) -> tuple[dict[str, Any], bytes]:
    """(head, body) of a request: the whole adapter, or the change of the round before."""
    number, now = course.last()
    head = {
        "agreement": agreement,
        "signature": signature,
        "round": state.number,
        "cohort": len(state.cohort),
        "parent": state.parent,
        "whole": int(whole or number == 0),
    }
    if head["whole"]:
        return head, now.adapter.astype("<f4").tobytes()
    return head, read_bytes(checkpoint.folder_of(course.home, number) / "change")


def request_of(
    head: Mapping[str, Any], body: bytes, *, home: Path, layout: Layout, packing: Packing
) -> Request | None:
    """The request that arrived; None where the site must ask for the whole adapter.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    adapter: Array | None
    if head["whole"]:
        adapter = np.frombuffer(body, "<f4").astype(np.float32)
        if adapter.size != layout.values:
            raise ValueError("another length")
    else:
        adapter = _kept(home, layout)
        adapter = None if adapter is None else adapter + unpack(body, layout.values, packing)
    if adapter is None or vector_sha256(layout, adapter) != head["parent"]:
        kept = _kept(home, layout)
        if kept is None or vector_sha256(layout, kept) != head["parent"]:
            return None
        adapter = kept  # asked again in the same round
    return Request(
        agreement=head["agreement"],
        signature=head["signature"],
        round=int(head["round"]),
        cohort=int(head["cohort"]),
        adapter=adapter,
    )


def keep(home: Path, adapter: Array) -> None:
    """Remember the adapter that a round began with."""
    write_bytes(home / "adapter", adapter.astype("<f4").tobytes())


def _kept(home: Path, layout: Layout) -> Array | None:
    path = home / "adapter"
    if not path.exists():
        return None
    adapter = np.frombuffer(read_bytes(path), "<f4").astype(np.float32)
    return adapter if adapter.size == layout.values else None
