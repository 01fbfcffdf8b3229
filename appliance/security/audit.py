"""One line for each change, written in the same transaction as the change.

An entry is canonical JSON (sorted keys, no spaces, ASCII); its leaf is SHA-256(0x00 || entry), the
leaf hash of RFC 6962, so that a Merkle tree over the table can prove what is in it. Deleting or
rewriting rows is not detected until that tree and its signed checkpoints exist.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from typing import Any

from appliance.core.events import now


def record(link: sqlite3.Connection, *, who: str, what: str, target: str, **detail: Any) -> None:
    """Append an entry inside the caller's transaction. Never put the text of a record in `detail`."""
    entry = json.dumps(
        {"at": now(), "who": who, "what": what, "target": target, **detail},
        sort_keys=True,
        separators=(",", ":"),
    )
    leaf = hashlib.sha256(b"\0" + entry.encode()).hexdigest()
    link.execute("INSERT INTO audit (entry, leaf) VALUES (?, ?)", (entry, leaf))


def tail(link: sqlite3.Connection, count: int) -> list[dict[str, Any]]:
    """The last `count` entries, oldest first, each with its `seq`."""
    rows = link.execute("SELECT seq, entry FROM audit ORDER BY seq DESC LIMIT ?", (count,)).fetchall()
    return [{"seq": row["seq"], **json.loads(row["entry"])} for row in reversed(rows)]
