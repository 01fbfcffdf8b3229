"""The last thing a coordinator says: the agreement that has ended, to each site that is there.

A site that has believed it answers `OVER` and its job ends. Who is not there, or carried by hand, or trains
until time is up, hears it by a notice (ending.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.core.errors import TrustRefused
from appliance.core.reading import read_bytes
from federated import description, seat
from federated.description import Federation

if TYPE_CHECKING:
    from federated.hub import _Hub as Hub

STEP, OVER = "end", "over"
_LOOK = 0.2
_COMING = 5.0  # seconds for sites that are not there, such as those that the link lost a moment ago


def tell(hub: Hub, number: int, clock: Callable[[], float], over: Callable[[], bool]) -> set[str]:
    """Tell the sites, for at most the deadline of a round; which of them have heard it."""
    federation = hub.course.federation
    active = {site.name for site in federation.active()}
    asked: set[str] = set()
    heard: set[str] = set()
    began = clock()
    limit = began + 60 * federation.rounds.deadline_minutes
    while heard != active and not over():
        now, missing = clock(), (hub.there & active) - hub.line.carried - heard
        if now >= limit or (not missing and now >= began + _COMING):
            break
        if new := sorted((hub.there & active) - asked):
            _send(hub, number, new)
            asked |= set(new)
        try:
            frame = hub.line.receive(_LOOK)
        except TimeoutError:
            continue
        if frame is None:
            break
        if frame.what == "there":
            asked -= set(frame.head["sites"]) - hub.there  # who comes back may have lost it
            hub.there = set(frame.head["sites"])
        elif frame.what == "answer" and frame.head.get("reason") == OVER:
            heard.add(str(frame.head["site"]))
    hub.told("ended", heard=sorted(heard), unheard=sorted(active - heard))
    return heard


def believed(home: Path, agreement: bytes, signature: bytes) -> Federation:
    """At a site, whose seat is in the folder `home`: the last version, kept as its newest; of a federation
    that has expired too.

    Raises:
        TrustRefused, ConfigWrong: it does not follow from the site's own, or does not say that it has ended.
    """
    held = description.parsed(read_bytes(home / "agreement.toml"))
    found = description.opened(agreement, signature, held.coordinator_key)
    description.successor(held, found, found.created)  # however late it is heard
    if not found.ended:
        raise TrustRefused(
            f"This says nothing of the end of {held.name}.",
            f"Have the coordinator write it: cloister federate end {held.name} --to FILE",
        )
    if not held.ended:
        seat.keep_agreement(home, agreement, signature)
    return found


def _send(hub: Hub, number: int, sites: list[str]) -> None:
    said = {
        "agreement": hub.agreement.hex(),
        "signature": hub.signature.hex(),
        "round": number,
        "step": STEP,
        "attempt": 0,
    }
    hub.line.send("ask", b"", ref=number, sites=sites, head=said)
