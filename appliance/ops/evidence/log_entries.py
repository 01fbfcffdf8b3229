"""What the audit log says: rows of other tables that grant something are held against it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from appliance.core.db import reading
from appliance.core.home import Home
from appliance.security.log.renewed import renewals


def entries(home: Home, *kinds: str) -> list[str]:
    """The times (UTC, ISO 8601) of the entries whose `what` is one of `kinds`, oldest first."""
    with reading(home) as link:
        rows = link.execute(
            "SELECT json_extract(entry, '$.at') FROM audit, json_each(?)"
            " WHERE json_extract(entry, '$.what') = json_each.value ORDER BY seq",
            (json.dumps(kinds),),
        )
        return [str(row[0]) for row in rows]


def told(home: Home, *kinds: str) -> list[dict[str, Any]]:
    """Those entries themselves, oldest first."""
    with reading(home) as link:
        rows = link.execute(
            "SELECT entry FROM audit, json_each(?) WHERE json_extract(entry, '$.what') = json_each.value"
            " ORDER BY seq",
            (json.dumps(kinds),),
        )
        return [json.loads(row[0]) for row in rows]


def untold(home: Home, moment: str) -> bool:
    """Whether what was done at that time may have no entry, because its log was set aside since."""
    before = renewals(home)
    return bool(before) and _utc(moment) <= _utc(before[-1].at)


def _utc(moment: str) -> datetime:
    return datetime.fromisoformat(moment).astimezone(UTC)
