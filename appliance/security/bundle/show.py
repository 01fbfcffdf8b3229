"""What leaves the building, in words, before anyone approves it; and what is inside of a bundle."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from appliance.security.bundle import wrap
from appliance.security.bundle.manifest import (
    NO_PRIVACY,
    UNTRAINED,
    Facts,
    facts_json,
    files_json,
    privacy_text,
)
from appliance.security.bundle.reading import Opened
from appliance.security.bundle.releasing import Request, request_digest
from appliance.security.trust.trust import DAY

__all__ = ["NO_PRIVACY", "UNTRAINED", "inside", "leaving", "not_protected", "privacy_text", "size_text"]


def size_text(size: int) -> str:
    """Bytes in a person's unit."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"


def not_protected(facts: Facts) -> list[str]:
    """What the envelope and the privacy do not cover."""
    told = [
        "whoever opens the bundle can copy what is inside, for ever; expiry only stops importing it",
        "the size of the bundle, and how many it is for, are visible to anyone who holds the file",
        "no test can show that a model has no hidden behaviour",
    ]
    if facts.privacy is not None and not facts.privacy["eps"]:
        told.insert(0, "what single records have left in the weights")
    return told


def leaving(request: Request) -> dict[str, Any]:
    """Everything that a person should see before approving a request, as plain values."""
    files = [source.entry for source in request.sources]
    return {
        "request": request_digest(request),
        "kind": request.facts.kind,
        "name": request.facts.name,
        "recipients": [{"name": one.name, "kid": wrap.kid(one, request.kem)} for one in request.receivers],
        "suite": request.kem,
        "days": request.lifetime // DAY,
        "size": sum(entry.size for entry in files),
        "files": files_json(files),
        "privacy": privacy_text(request.facts),
        "eval": dict(request.facts.evaluation or {}),
        "license": request.facts.license,
        "not_protected": not_protected(request.facts),
    }


def inside(opened: Opened) -> dict[str, Any]:
    """What a bundle says of itself, as plain values."""
    manifest = opened.manifest
    return {
        "digest": opened.digest,
        "signer": opened.signer.name if opened.signer else None,
        "vouched": opened.signer.vouched if opened.signer else None,
        "key": opened.key,
        "words": opened.words,
        "suite": opened.suite,
        "recipients": opened.recipients,
        "line": manifest.line,
        "seq": manifest.seq,
        "key_epoch": manifest.key_epoch,
        "created": date_text(manifest.created),
        "expires": date_text(manifest.expires),
        "size": manifest.size,
        "privacy_text": privacy_text(manifest.facts),
        **facts_json(manifest.facts),
        "files": files_json(manifest.files),
    }


def date_text(seconds: int) -> str:
    """A day, UTC."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        return f"second {seconds}"
