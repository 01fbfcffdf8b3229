"""Lets a bundle out: what leaves is bound to a hash, people approve that hash, and both are on record
before the first byte is written.

The number of a bundle is reserved in the same transaction as its audit line, so a crash leaves a gap
in the numbers and never the same number twice. The people's yes is used up in the transaction that puts
the whole, synced bundle on record, just before it gets its name: an export that failed has used nothing,
and there is never a bundle without its yes. Between that transaction and the name lies one rename.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.events import now
from appliance.core.home import Home
from appliance.security import audit, canonical
from appliance.security.bundle import wrap
from appliance.security.bundle.format import KEMS, RECIPIENTS_MOST
from appliance.security.bundle.manifest import Facts, facts_json, files_json, privacy_text
from appliance.security.bundle.paths import check_names
from appliance.security.bundle.refusals import refused
from appliance.security.bundle.writing import Source, Written, default_suite, write
from appliance.security.people import guard
from appliance.security.trust.identity import Identity, Receiver
from appliance.security.trust.trust import DAY, MAY_SIGN

LONGEST = 400 * DAY
RIGHT, ROUND_RIGHT = "bundle.export", "federate.carry"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What shall leave: contents, for whom, how long it is good (seconds from when it is made)."""

    sources: tuple[Source, ...]
    facts: Facts
    receivers: tuple[Receiver, ...]
    kem: str = KEMS[0]
    lifetime: int = 90 * DAY
    line: str = ""


def canonical_request(request: Request) -> dict[str, Any]:
    """The request as people approve it, without its audit checkpoint: that is of the moment of writing."""
    return {
        "what": "bundle.export",
        **facts_json(replace(request.facts, checkpoint="")),
        "files": files_json([source.entry for source in request.sources]),
        "recipients": sorted(
            [one.name, wrap.kid(one, request.kem), hashlib.sha256(one.public_bytes(request.kem)).hexdigest()]
            for one in request.receivers
        ),
        "kem": request.kem,
        "lifetime": request.lifetime,
        "line": request.line or request.facts.kind,
    }


def request_digest(request: Request) -> str:
    """SHA-256 of the canonical request, in hex: what two people sign."""
    return hashlib.sha256(canonical.encode(canonical_request(request))).hexdigest()


def content_of(request: Request) -> dict[str, str]:
    """What two people agree to: the digest stands for every file, receiver and limit."""
    return {
        "request": request_digest(request),
        "model": request.facts.name,
        "for": ", ".join(one.name for one in request.receivers),
        "files": ", ".join(source.entry.path for source in request.sources),
        "privacy": privacy_text(request.facts),
    }


def check_request(request: Request) -> None:
    """Check what can be checked before anyone is asked.

    Raises:
        ConfigWrong: no receiver or too many, a lifetime above 400 days, an unknown suite.
        BundleRefused: names that no bundle may have.
    """
    if not 1 <= len(request.receivers) <= RECIPIENTS_MOST:
        raise ConfigWrong(f"A bundle is for 1 to {RECIPIENTS_MOST} receivers.", "Name them with --to.")
    if not 0 < request.lifetime <= LONGEST:
        raise ConfigWrong("A bundle is good for up to 400 days.", "Such as --expires 90d.")
    if request.kem not in KEMS:
        raise ConfigWrong("There is no such suite.", "Choose hybrid or x25519.")
    check_names(request.facts.kind, [source.entry.path for source in request.sources])


def export(
    home: Home,
    request: Request,
    out: Path,
    *,
    identity: Identity,
    who: str,
    seconds: Callable[[], float] = time.time,
) -> Written:
    """Write the bundle `out`, if two people have agreed to this very request; their yes is used up.

    A bundle of the kind `round` takes one person who may carry rounds (federated/carrying.py).

    Raises:
        NotAllowed: `who` may not. NeedsApproval: two people have not agreed to `content_of` it.
        BundleRefused: `changed`, `wrong-kind`, or what `write` refuses.
        ConfigWrong: as `check_request`. NoRoom: the disk is full.
    """
    check_request(request)
    if request.facts.kind not in MAY_SIGN[identity.role]:
        raise refused("wrong-kind", name=identity.name, kind=request.facts.kind)
    if not out.parent.is_dir():
        raise NotFound(f"There is no folder {out.parent}.", "Choose another place with --out FILE.")
    digest, content = request_digest(request), content_of(request)
    line = request.line or request.facts.kind
    seq = _begin(home, request, digest, line, content, who)
    created = int(seconds())
    _sweep_drafts(out)

    def let_out(written: Written) -> None:
        with transaction(home) as link:
            right = _right(request)
            guard.spend(link, home, who, right, request.facts.name, content=content, used_for=f"bundle {seq}")
            link.execute(
                "UPDATE bundles_out SET state = 'written', digest = ? WHERE seq = ?", (written.digest, seq)
            )
            audit.record(
                link,
                who=who,
                what=right,
                target=written.digest,
                request=digest,
                seq=seq,
                size=written.size,
            )

    return write(
        out,
        request.sources,
        request.facts,
        identity=identity,
        receivers=request.receivers,
        suite=default_suite(request.kem),
        line=line,
        seq=seq,
        created=created,
        expires=created + request.lifetime,
        before_named=let_out,
    )


def _begin(home: Home, request: Request, digest: str, line: str, content: dict[str, str], who: str) -> int:
    """Reserve the next number and put on record what is about to leave, for whom, approved by whom."""
    names = sorted(receiver.name for receiver in request.receivers)
    with transaction(home) as link:
        people: tuple[str, ...] = (who,)
        if _right(request) == RIGHT:
            people = guard.agreed(link, home, who, RIGHT, request.facts.name, content=content)
        else:
            guard.spend(link, home, who, ROUND_RIGHT, request.facts.name)
        row = link.execute(
            "INSERT INTO bundles_out (request, kind, line, recipients, approved_by, state, begun, who)"
            " VALUES (?, ?, ?, ?, ?, 'begun', ?, ?)",
            (digest, request.facts.kind, line, json.dumps(names), json.dumps(list(people)), now(), who),
        )
        seq = int(row.lastrowid or 0)
        audit.record(
            link,
            who=who,
            what="bundle.export.begin",
            target=request.facts.name,
            kind=request.facts.kind,
            request=digest,
            line=line,
            seq=seq,
            recipients=names,
            files=[source.entry.sha256 for source in request.sources],
            approved_by=list(people),
        )
    return seq


def _right(request: Request) -> str:
    """What it takes to let this out. A round's update leaves by stick as it leaves over the link: the site
    agreed to the federation as a whole."""
    return ROUND_RIGHT if request.facts.kind == "round" else RIGHT


def _sweep_drafts(out: Path) -> None:
    """Remove what a killed export has left beside `out`."""
    for draft in out.parent.glob(f".{out.name}.*.tmp"):
        with suppress(ValueError, OSError):
            owner = int(draft.name.split(".")[-2])
            try:
                os.kill(owner, 0)
            except ProcessLookupError:
                draft.unlink()
