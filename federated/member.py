"""A site at work: takes requests from its link, answers from its seat, until the federation ends.

The link is a process with the network (flower/site_link.py); this one has the records, the keys and no
network. One bad request is answered with a code and the next is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from appliance.core.errors import ApplianceError, NoRoom
from federated import description, farewell, messages
from federated.flower.frames import Ends, Frame
from federated.seat import Seat, answer
from federated.secure import seat as secure


def serve(seat: Seat, line: Ends, told: Callable[..., None], *, over: Callable[[], bool]) -> bool:
    """Answer until the link ends or `over` says so, or the federation has ended, which is when this is True;
    `told(what, **facts)` hears of all that happens.

    Raises:
        OSError: the disk; the round was not answered.
    """
    while not over():
        try:
            frame = line.receive(0.5)
        except TimeoutError:
            continue
        if frame is None:
            return False
        if frame.what == "asked":
            told("asked", bytes=len(frame.body))
            number, reason, body = _answered(seat, frame)
            if reason == farewell.OVER:
                line.send("answer", round=number, reason=reason)
                told("ended")
                return True
            told("round", round=number, answer=reason or "sent", bytes=len(body))
            line.send("answer", body, round=number, reason=reason)
        else:
            told(frame.what, **{key: value for key, value in frame.head.items() if key != "what"})
    return False


def _answered(seat: Seat, frame: Frame) -> tuple[int, str, bytes]:
    """(round, reason of a refusal or "", update)."""
    try:
        return _read(seat, frame)
    except NoRoom:
        return 0, "disk", b""


def _read(seat: Seat, frame: Frame) -> tuple[int, str, bytes]:
    try:
        head: dict[str, Any] = dict(frame.head["head"])
        head |= {name: bytes.fromhex(head[name]) for name in ("agreement", "signature")}
        packing = description.parsed(head["agreement"]).rounds.packing
        number = int(head["round"])
        if head.get("step") == farewell.STEP:
            return number, _over(seat, head), b""
        if "step" in head:
            said = secure.answer(seat, head, frame.body, now=datetime.now(UTC))
            return (number, "", said) if isinstance(said, bytes) else (number, said, b"")
        request = messages.request_of(head, frame.body, home=seat.home, layout=seat.layout, packing=packing)
    except (ValueError, KeyError, TypeError, ArithmeticError):
        return 0, "malformed", b""
    if request is None:
        return number, messages.BEHIND, b""
    found = answer(seat, request, now=datetime.now(UTC))
    if not isinstance(found, bytes):
        return number, found, b""
    messages.keep(seat.home, request.adapter)
    return number, "", found


def _over(seat: Seat, head: dict[str, Any]) -> str:
    """What is said to the end of the federation."""
    try:
        farewell.believed(seat.home, head["agreement"], head["signature"])
    except ApplianceError:
        return "agreement"
    return farewell.OVER
