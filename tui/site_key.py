"""What signs for this site: its audit log's checkpoints, with the key that its bundles are signed with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from appliance.core.home import Home

if TYPE_CHECKING:
    from appliance.security.log.checkpoint import LogKey


def site_key(home: Home) -> LogKey | None:
    """The site's signer; None until it has keys (`cloister trust init`)."""

    from appliance.core.reading import read_bytes
    from appliance.security.log.checkpoint import Signer
    from appliance.security.trust.identity import identity_of

    if not home.identity.exists():
        return None
    held = identity_of(read_bytes(home.identity))
    return Signer(name=f"cloister/{held.name}", key=held.signing)


def utc_now() -> datetime:
    """The time that a checkpoint states."""
    return datetime.now(UTC)
