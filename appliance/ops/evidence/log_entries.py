"""When the audit log has entries of a kind."""

from __future__ import annotations

import json

from appliance.core.db import reading
from appliance.core.home import Home


def entries(home: Home, *kinds: str) -> list[str]:
    """The times (UTC, ISO 8601) of the entries whose `what` is one of `kinds`, oldest first."""
    with reading(home) as link:
        rows = link.execute(
            "SELECT json_extract(entry, '$.at') FROM audit, json_each(?)"
            " WHERE json_extract(entry, '$.what') = json_each.value ORDER BY seq",
            (json.dumps(kinds),),
        )
        return [str(row[0]) for row in rows]
