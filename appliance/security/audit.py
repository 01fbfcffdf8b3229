"""One line for each change, written in the same transaction as the change.

An entry is canonical JSON (sorted keys, no spaces, ASCII); its leaf is SHA-256(0x00 || entry), the
leaf hash of RFC 6962. It goes into a Merkle tree (log/tree.py) whose signed root, once it is held
elsewhere, shows every later change: log/verify.py. An entry that the tree does not take is not written,
and with it nothing that the transaction holds.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from appliance.core.events import now
from appliance.security.log import merkle, tree


def record(link: sqlite3.Connection, *, who: str, what: str, target: str, **detail: Any) -> None:
    """Append an entry inside the caller's transaction. Never put the text of a record in `detail`.

    Raises:
        LogDamaged: the log has lost entries or a part of its tree.
    """
    entry = json.dumps(
        {"at": now(), "who": who, "what": what, "target": target, **detail},
        sort_keys=True,
        separators=(",", ":"),
    )
    leaf = merkle.leaf_hash(entry.encode())
    seq = link.execute("INSERT INTO audit (entry, leaf) VALUES (?, ?)", (entry, leaf.hex())).lastrowid
    tree.append(link, int(seq or 0), leaf)


def tail(link: sqlite3.Connection, count: int) -> list[dict[str, Any]]:
    """The last `count` entries, oldest first, each with its `seq`."""
    rows = link.execute("SELECT seq, entry FROM audit ORDER BY seq DESC LIMIT ?", (count,)).fetchall()
    return [{"seq": row["seq"], **json.loads(row["entry"])} for row in reversed(rows)]
