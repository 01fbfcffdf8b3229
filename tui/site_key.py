"""What signs for this site: its bundles, and its audit log's checkpoints with the same key."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from appliance.core.db import transaction
from appliance.core.files import write_private
from appliance.core.home import Home
from appliance.security import audit

if TYPE_CHECKING:
    from appliance.security.log.checkpoint import LogKey, Verifier
    from appliance.security.trust.identity import Identity

_NOT_OF_NAMES = re.compile(r"[^A-Za-z0-9]+")


def make_site_key(home: Home, who: str, name: str, role: str) -> Identity:
    """New keys for a site that has none. Raises ConfigWrong: a bad name or role."""
    from appliance.security.trust.identity import new_identity

    made = new_identity(name, role)
    write_private(home.identity, made.secret())
    with transaction(home) as link:
        audit.record(link, who=who, what="identity.new", target=name, role=role, key=made.key)
    return made


def key_name(site: str) -> str:
    """The name of a site as its keys have it."""
    return _NOT_OF_NAMES.sub("-", site).strip("-")[:64] or "site"


def site_key(home: Home) -> LogKey | None:
    """The site's signer; None until it has keys (`cloister init`, `cloister trust init`).

    Raises:
        Locked: the site is sealed and locked. Nothing is signed then: not a checkpoint, not a bundle.
    """

    from appliance.core.reading import read_bytes
    from appliance.security.log.checkpoint import Signer
    from appliance.security.log.renewed import origin
    from appliance.security.trust.identity import identity_of
    from appliance.security.trust.rotation import finish

    if not home.identity.exists():
        return None
    finish(home)
    held = identity_of(read_bytes(home.identity))
    return Signer(name=origin(home, held.name), key=held.signing)


def older_keys(home: Home) -> list[Verifier]:
    """The site's keys before its newest, which signed older checkpoints of its log."""
    from appliance.security.log.checkpoint import Verifier
    from appliance.security.log.renewed import origin
    from appliance.security.trust.rotation import older

    return [Verifier(name=origin(home, card.name), public=bytes.fromhex(card.key)) for card in older(home)]


def utc_now() -> datetime:
    """The time that a checkpoint states."""
    return datetime.now(UTC)
