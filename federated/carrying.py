"""A round in a bundle: what a coordinator asks of a site, and what the site answers, signed and sealed.

Inside: `round.json`, the frame's head with the federation's id and the site's name, and `body.safetensors`,
the adapter or the update as bytes (one U8 array, `body`). The bundle's signer must be the very key that the
agreement names for the side it comes from; sealed for one receiver, counted and dated as every bundle
(docs/bundle-format.md), it cannot be read, altered or replayed on its way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from appliance.core.errors import ConfigWrong, TrustRefused
from appliance.core.reading import read_bytes
from appliance.security import canonical
from appliance.security.bundle.manifest import Facts
from appliance.security.bundle.reading import Opened
from appliance.security.bundle.releasing import Request
from appliance.security.bundle.writing import bytes_source
from appliance.security.trust.identity import Receiver
from federated.description import Federation
from federated.flower.frames import Frame

HEAD, BODY = "round.json", "body.safetensors"
KIND = "round"


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What arrived: `frame` as the job takes it, of which site and round."""

    frame: Frame
    site: str
    round: int


def check_carried(federation: Federation) -> None:
    """Nothing, where rounds may be carried by hand.

    Raises:
        ConfigWrong: they go by secure aggregation.
    """
    if federation.rounds.secure:
        raise ConfigWrong(
            f"Rounds of {federation.name} go by secure aggregation: a site answers two or three times in each"
            " round, and all others wait for it.",
            "Give the site a link; or agree on a federation of plain rounds for sites that are carried.",
        )


def leaving(federation: Federation, site: str, frame: Frame, receiver: Receiver) -> Request:
    """The bundle that carries `frame` to `receiver`. `frame` is what the job laid out (stick.py).

    Raises:
        ValueError: it is no such frame.
    """
    asked = frame.what == "ask"
    number = int(frame.head["ref" if asked else "round"])
    head = {
        "federation": federation.id,
        "site": site,
        "what": frame.what,
        "round": number,
        "head": frame.head["head"] if asked else {"reason": str(frame.head["reason"])},
    }
    what = "the adapter that the round begins with" if asked else "the site's signed update"
    return Request(
        sources=(
            bytes_source(canonical.encode(head), HEAD, "what is asked" if asked else "the answer"),
            bytes_source(save({"body": np.frombuffer(frame.body, np.uint8)}), BODY, what),
        ),
        facts=Facts(
            kind=KIND,
            name=f"{federation.name}-{number:04}",
            form=frame.what,
            base_model_digest=federation.model.sha256,
            privacy=_privacy(federation),
        ),
        receivers=(receiver,),
        line=f"round-{federation.id[:16]}-{site}",
    )


def arrived(opened: Opened, folder: Path, federation: Federation, own: str) -> Carried:
    """The frame of a bundle that came in; `own` is the key of this site (hex).

    Raises:
        TrustRefused: it is of another federation, or not signed by whom it must come from.
    """
    try:
        head: dict[str, Any] = canonical.decode(read_bytes(folder / HEAD))
        body = load(read_bytes(folder / BODY))["body"].tobytes()
        what, site, number = str(head["what"]), federation.site(head["site"]), int(head["round"])
        said = dict(head["head"])
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise TrustRefused(
            "The bundle holds no round as this version writes it.", "Have it exported again."
        ) from problem
    if head["federation"] != federation.id or site is None:
        raise TrustRefused(
            f"The bundle is of another federation than {federation.name}.", "Choose another file."
        )
    to, by = (
        (site.key, federation.coordinator_key) if what == "ask" else (federation.coordinator_key, site.key)
    )
    if what not in ("ask", "answer") or opened.key != by or own != to:
        by_whom = opened.signer.name if opened.signer else opened.words
        way = f"the coordinator to {site.name}" if what == "ask" else f"{site.name} to the coordinator"
        raise TrustRefused(
            f"This round must go from {way}; it is signed by {by_whom}, or for somebody else.",
            "Ask whoever made it.",
        )
    if what == "ask":
        frame = Frame(head={"what": "asked", "head": said}, body=body)
    else:
        told = {"site": site.name, "ref": number, "reason": str(said.get("reason", ""))}
        frame = Frame(head={"what": "answer", **told}, body=body)
    return Carried(frame=frame, site=site.name, round=number)


def _privacy(federation: Federation) -> dict[str, Any]:
    """What a single site's training may have spent, as agreed for all rounds."""
    held = federation.training
    private = held.private
    return {
        "unit": held.unit if private else "",
        "eps": f"{held.epsilon:f}" if private else "",
        "delta": f"{held.delta:.12f}" if private else "",
        "accountant": "each site's own ledger" if private else "",
        "events": [],
        "audit": "",
    }
