"""One pass over the whole log: every entry is hashed again and compared with what was kept of it.

Entries are bytes here and never parsed. In memory are one batch of entries, the hashes over it and one
path of the tree, whatever the length of the log. An entry that does not fit is looked up in the tree by
its hash, and the tree's hash among the entries: that tells changed, missing, inserted and reordered apart.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from appliance.security.log import merkle

_LEVEL = 12
BATCH = 1 << _LEVEL  # entries
MOST_NAMED = 100  # changed entries that are named


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What is wrong with entries `first` to `last`. `kind` is one word, or two."""

    kind: str
    first: int
    last: int
    text: str


@dataclass(kw_only=True)
class Walked:
    """Entries that stand where they should, the roots asked for, and what was found wrong.

    `stopped`: entries are missing, too many or moved, so what follows cannot be judged.
    """

    size: int = 0
    roots: dict[int, bytes] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)
    stopped: bool = False

    def note(self, kind: str, first: int, last: int, text: str) -> None:
        """Add a finding; of changed entries the first hundred are named."""
        if len(self.damages) < MOST_NAMED:
            self.damages.append(Damage(kind=kind, first=first, last=last, text=text))


def walk(link: sqlite3.Connection, sizes: Sequence[int], *, in_tree: bool) -> Walked:
    """Walk the log inside the caller's (read) transaction; roots at those of `sizes` it reaches, and its end.

    `in_tree`: False for a log that has not been taken into a tree yet.
    """
    found, wanted = Walked(), sorted(set(sizes))
    frontier: dict[tuple[int, int], bytes] = {}
    made: list[list[bytes]] = [[]]
    begin = 0
    entries = link.execute("SELECT seq, CAST(entry AS BLOB), leaf FROM audit ORDER BY seq")
    while not found.stopped and (rows := entries.fetchmany(BATCH)):
        begin = found.size
        rows = _in_order(rows, found)
        digest = hashlib.sha256
        leaves = [digest(b"\0" + row[1]).digest() for row in rows]
        good = len(found.damages)
        if in_tree:
            leaves = leaves[: _compare(link, begin, rows, leaves, found)]
        elif [leaf.hex() for leaf in leaves] != [row[2] for row in rows]:
            _leaf_column(begin, rows, leaves, found)
        found.size = begin + len(leaves)
        made = merkle.levels(leaves)
        while wanted and wanted[0] <= found.size:
            size = wanted.pop(0)
            found.roots[size] = merkle.root(size, _node(made, begin, frontier))
        if in_tree and len(found.damages) == good:
            _compare_inside(link, begin, made, found)
        if len(leaves) == BATCH:
            _carry(link, begin >> _LEVEL, made[_LEVEL][0], frontier, found, in_tree=in_tree)
            made = [[]]
    found.roots[0] = merkle.EMPTY
    found.roots[found.size] = merkle.root(found.size, _node(made, begin, frontier))
    return found


def _node(made: list[list[bytes]], begin: int, frontier: dict[tuple[int, int], bytes]) -> merkle.Node:
    def look(level: int, place: int) -> bytes:
        kept = frontier.get((level, place))
        return kept if kept is not None else made[level][place - (begin >> level)]

    return look


def _in_order(rows: list[sqlite3.Row], found: Walked) -> list[sqlite3.Row]:
    """The rows up to the first whose number is not the next one."""
    expected = range(found.size + 1, found.size + 1 + len(rows))
    if rows[0][0] == expected[0] and rows[-1][0] == expected[-1]:
        return rows  # numbers are unique and come in order
    place = next(i for i, row in enumerate(rows) if row[0] != expected[i])
    due, there = expected[place], rows[place][0]
    found.stopped = True
    if there < due:
        found.note("inserted", there, there, f"entry {there} was put in: no entry has such a number")
    else:
        found.note("missing", due, there - 1, f"{_entries(due, there - 1)} missing")
    return rows[:place]


def _compare(
    link: sqlite3.Connection, begin: int, rows: list[sqlite3.Row], leaves: list[bytes], found: Walked
) -> int:
    """Set the entries beside the leaves of the tree; how many can go on."""
    kept = _kept(link, 0, begin, len(rows))
    if kept != leaves:
        size = link.execute("SELECT MAX(place) + 1 FROM audit_tree WHERE level = 0").fetchone()[0] or 0
        for place, (leaf, known) in enumerate(zip(leaves, kept, strict=True)):
            seq = begin + place + 1
            if known is None and seq <= size:
                found.note("tree", seq, seq, f"the tree has lost the hash of entry {seq}")
            elif known is None:
                found.note("inserted", seq, seq, f"entry {seq} was put in: the tree does not know it")
                found.stopped = True
                return place
            elif known != leaf and _judge(link, seq, leaf, known, found):
                found.stopped = True
                return place
    _leaf_column(begin, rows, leaves, found)
    return len(leaves)


def _leaf_column(begin: int, rows: list[sqlite3.Row], leaves: list[bytes], found: Walked) -> None:
    told = [row[2] for row in rows]
    if told == [leaf.hex() for leaf in leaves]:
        return
    named = {damage.first for damage in found.damages}
    for place, (leaf, column) in enumerate(zip(leaves, told, strict=True)):
        seq = begin + place + 1
        if leaf.hex() != column and seq not in named:
            found.note("changed", seq, seq, f"entry {seq} was changed: its leaf hash is not that of its text")


def _judge(link: sqlite3.Connection, seq: int, leaf: bytes, kept: bytes, found: Walked) -> bool:
    """Say what happened to entry `seq`; whether all that follows has moved."""
    if len(found.damages) >= MOST_NAMED:
        return False
    came = link.execute(
        "SELECT place FROM audit_tree WHERE level = 0 AND hash = ? ORDER BY place LIMIT 1", (leaf,)
    ).fetchone()
    went = link.execute("SELECT seq FROM audit WHERE leaf = ? LIMIT 1", (kept.hex(),)).fetchone()
    if went is not None and went[0] == seq:
        went = None  # its text was changed and its leaf was not
    if came is None and went is None:
        found.note("changed", seq, seq, f"entry {seq} was changed: it is not what the tree holds")
        return False
    if came is None:
        found.note("inserted", seq, seq, f"entry {seq} was put in: what stood there is now entry {went[0]}")
    elif went is None:
        found.note("missing", seq, seq, f"entry {seq} is missing: what follows was numbered anew")
    else:
        found.note(
            "reordered", seq, seq, f"entry {seq} was moved: it was entry {came[0] + 1} when it was written"
        )
    return True


def _compare_inside(link: sqlite3.Connection, begin: int, made: list[list[bytes]], found: Walked) -> None:
    """Set the hashes over this batch beside those kept."""
    for level, row in enumerate(made[1:], start=1):
        first = begin >> level
        kept = _kept(link, level, first, len(row))
        if kept != row:
            wrong = next(i for i, (one, other) in enumerate(zip(kept, row, strict=True)) if one != other)
            _tree_wrong(level, first + wrong, found)


def _kept(link: sqlite3.Connection, level: int, first: int, count: int) -> list[bytes | None]:
    """The tree's hashes at `count` places of a level; None where there is none."""
    rows = link.execute(
        "SELECT place, hash FROM audit_tree WHERE level = ? AND place >= ? AND place < ? ORDER BY place",
        (level, first, first + count),
    ).fetchall()
    if len(rows) == count:
        return [row[1] for row in rows]
    there = {row[0]: row[1] for row in rows}
    return [there.get(place) for place in range(first, first + count)]


def _carry(
    link: sqlite3.Connection,
    place: int,
    whole: bytes,
    frontier: dict[tuple[int, int], bytes],
    found: Walked,
    *,
    in_tree: bool,
) -> None:
    """Take the hash of a whole batch into the frontier, checking what it completes."""
    level = _LEVEL
    while place & 1:
        whole = merkle.node_hash(frontier.pop((level, place - 1)), whole)
        level, place = level + 1, place >> 1
        if not in_tree or found.damages:
            continue
        if _kept(link, level, place, 1) != [whole]:
            _tree_wrong(level, place, found)
    frontier[(level, place)] = whole


def _tree_wrong(level: int, place: int, found: Walked) -> None:
    begin, end = (place << level) + 1, (place + 1) << level
    found.note("tree", begin, end, f"the tree's hash over entries {begin} to {end} is not theirs")


def _entries(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"
