"""The Merkle tree of the audit log as rows: `audit_tree` holds the hash of every complete subtree.

An entry adds its leaf and what it completes, two rows on average, in the transaction of its own row.
Stored hashes make proofs fast; what checks the log (verify.py) computes them anew from the entries.
Leaf n is entry n + 1: `seq` counts from 1 without gaps.
"""

from __future__ import annotations

import sqlite3

from appliance.core.errors import LogDamaged
from appliance.security.log import merkle

_BATCH = 10_000


def append(link: sqlite3.Connection, seq: int, leaf: bytes) -> None:
    """Take the entry just written into the tree. O(log n).

    Raises:
        LogDamaged: the entry does not follow the last one, or the tree has lost a part that it needs.
    """
    size = catch_up(link)
    if seq != size + 1:
        raise _broken(f"entry {seq} would follow entry {size}")
    _grow(link, size, leaf)
    link.execute("UPDATE audit_head SET size = ?", (seq,))


def catch_up(link: sqlite3.Connection) -> int:
    """Take in the entries that were written before there was a tree; the tree's size.

    Raises:
        LogDamaged: one of them is missing.
    """
    size, older = head(link)
    if size >= older:
        return size
    while size < older:
        rows = link.execute(
            "SELECT seq, CAST(entry AS BLOB) FROM audit WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
            (size, older, _BATCH),
        ).fetchall()
        if not rows:
            raise _broken(f"entry {size + 1} is missing")
        for seq, entry in rows:
            if seq != size + 1:
                raise _broken(f"entry {size + 1} is missing")
            _grow(link, size, merkle.leaf_hash(entry))
            size += 1
    link.execute("UPDATE audit_head SET size = ?", (size,))
    return size


def head(link: sqlite3.Connection) -> tuple[int, int]:
    """Entries in the tree, and how many there were before the first tree.

    Raises:
        LogDamaged: the row is gone.
    """
    row = link.execute("SELECT size, older FROM audit_head").fetchone()
    if row is None:
        raise _broken("the size of the tree is gone")
    return int(row[0]), int(row[1])


def node(link: sqlite3.Connection) -> merkle.Node:
    """The tree's stored hashes.

    Raises:
        LogDamaged: (when called) there is none at that place.
    """

    def look(level: int, place: int) -> bytes:
        row = link.execute(
            "SELECT hash FROM audit_tree WHERE level = ? AND place = ?", (level, place)
        ).fetchone()
        if row is None:
            raise _broken(f"the tree has no hash over entries {(place << level) + 1} and on")
        return bytes(row[0])

    return look


def root(link: sqlite3.Connection, size: int) -> bytes:
    """The root over the first `size` entries, from stored hashes."""
    return merkle.root(size, node(link))


def _grow(link: sqlite3.Connection, index: int, leaf: bytes) -> None:
    link.executemany(
        "INSERT INTO audit_tree (level, place, hash) VALUES (?, ?, ?)",
        merkle.completed(index, leaf, node(link)),
    )


def _broken(what: str) -> LogDamaged:
    return LogDamaged(
        f"The audit log is damaged: {what}.",
        "See all that is wrong with it, and the way out: cloister audit verify",
    )
