"""Checkpoints: those the site signed itself, and those that came back from outside and so bear witness.

A witness is kept twice, in the database and as a file of its own in `home.witnesses`: whoever puts back
an older database is shown by the file. Who puts back the whole folder is shown only by a checkpoint that
is brought in anew. A checkpoint of another site's log is kept as well: then this site is the witness.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance.core.db import transaction
from appliance.core.errors import DataRejected, LogDamaged
from appliance.core.events import now
from appliance.core.files import write_private
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.log import tree
from appliance.security.log.checkpoint import (
    LARGEST_NOTE,
    Checkpoint,
    LogKey,
    Verifier,
    origin_of,
    read,
    sign,
    verifier,
)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A checkpoint as it is kept. `in_database`: not only as a file; `outside`: it came back from there."""

    note: bytes
    source: str
    in_database: bool
    outside: bool


def make(
    home: Home, key: LogKey, *, who: str, clock: Callable[[], datetime], older: Sequence[Verifier] = ()
) -> Checkpoint:
    """Sign the log as it is, the entry about this checkpoint among it. `older`: the site's keys before.

    Raises:
        LogDamaged: it does not extend what was signed or witnessed last; then nothing is signed.
        DataRejected: a checkpoint that is kept is signed by nobody known.
    """
    with transaction(home) as link:
        audit.record(link, who=who, what="audit.checkpoint", target=key.name)
        return make_in(link, home, key, clock=clock, older=older)


def make_in(
    link: sqlite3.Connection,
    home: Home,
    key: LogKey,
    *,
    clock: Callable[[], datetime],
    older: Sequence[Verifier] = (),
) -> Checkpoint:
    """As `make`, inside the caller's transaction and without an entry of its own: for bundles and exports.

    Raises:
        LogDamaged, DataRejected: as `make`.
    """
    size = tree.catch_up(link)
    for note in _newest(link, home, key.name):
        _check_extends(link, size, read(note, [verifier(key), *older]))
    made = sign(key, size, tree.root(link, size), clock())
    link.execute(
        "INSERT OR IGNORE INTO checkpoints (size, root, created, note) VALUES (?, ?, ?, ?)",
        (made.size, made.root.hex(), now(), made.note.decode()),
    )
    return made


def add(home: Home, note: bytes, keys: Sequence[Verifier], *, who: str, source: str) -> Checkpoint:
    """Keep a checkpoint of this site's log that came back, then compare it with the log.

    `keys`: the site's own. `source`: where it came from, in a few words for the log.

    Raises:
        DataRejected: it is not a checkpoint that the site signed.
        LogDamaged: the log does not extend it. It is kept all the same, and `verify` goes on saying so.
    """
    found = read(note, keys)
    try:
        with transaction(home) as link:
            remember(link, found, source=source, who=who)
    finally:
        # After the row, for a file without one is taken for the trace of an older database; and also
        # where the log is too damaged to take a row.
        home.witnesses.mkdir(mode=0o700, exist_ok=True)
        write_private(home.witnesses / f"{found.size:012d}-{found.root.hex()[:16]}.note", note)
    with transaction(home) as link:
        _check_extends(link, tree.catch_up(link), found)
    return found


def remember(link: sqlite3.Connection, found: Checkpoint, *, source: str, who: str) -> None:
    """Keep a checkpoint that was read (its signature checked), of whatever log; for bundles that come in.

    Raises:
        LogDamaged: that log's site has signed another root at the same size before.
    """
    row = link.execute(
        "SELECT source FROM witnesses WHERE origin = ? AND size = ? AND root <> ?",
        (found.origin, found.size, found.root.hex()),
    ).fetchone()
    if row is not None:
        raise LogDamaged(
            f"{found.origin} has signed two different logs of {found.size} entries; the other came from "
            f"{row[0]}.",
            "Keep both files: together they prove it.",
        )
    done = link.execute(
        "INSERT OR IGNORE INTO witnesses (origin, size, root, created, source, note)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (found.origin, found.size, found.root.hex(), now(), source, found.note.decode()),
    )
    if done.rowcount:
        audit.record(
            link, who=who, what="audit.witness", target=found.origin, size=found.size, root=found.root.hex()
        )


def held(link: sqlite3.Connection, origin: str) -> bytes | None:
    """The largest checkpoint kept of a log, to be handed back to its site."""
    row = link.execute(
        "SELECT note FROM witnesses WHERE origin = ? ORDER BY size DESC LIMIT 1", (origin,)
    ).fetchone()
    return None if row is None else str(row[0]).encode()


def stored(link: sqlite3.Connection, home: Home, origin: str) -> list[Kept]:
    """Every checkpoint of this site's log, its own and those from outside.

    Raises:
        DataRejected: a file among them cannot be read.
    """
    files = {path: read_note(path) for path in _files(home)}
    own = [str(row[0]).encode() for row in link.execute("SELECT note FROM checkpoints ORDER BY size")]
    back = [
        str(row[0]).encode()
        for row in link.execute("SELECT note FROM witnesses WHERE origin = ? ORDER BY size", (origin,))
    ]
    kept = [Kept(note=note, source="its own checkpoint", in_database=True, outside=False) for note in own]
    kept += [Kept(note=note, source="a witness", in_database=True, outside=True) for note in back]
    kept += [
        Kept(note=note, source=path.name, in_database=False, outside=True)
        for path, note in files.items()
        if note not in back and _may_be_of(note, origin)
    ]
    return kept


def _files(home: Home) -> list[Path]:
    """By size, which their names begin with."""
    return sorted(home.witnesses.glob("*.note"))


def _may_be_of(note: bytes, origin: str) -> bool:
    """Whether a file is a checkpoint of this log, or too damaged to tell; not of one that was set aside."""
    try:
        return origin_of(note) == origin
    except DataRejected:
        return True


def _newest(link: sqlite3.Connection, home: Home, origin: str) -> list[bytes]:
    """The largest checkpoint of each place: those before were extended when it was taken in."""
    notes = [note for path in _files(home) if _may_be_of(note := read_note(path), origin)][-1:]
    for query, values in (
        ("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1", ()),
        ("SELECT note FROM witnesses WHERE origin = ? ORDER BY size DESC LIMIT 1", (origin,)),
    ):
        notes += [str(row[0]).encode() for row in link.execute(query, values)]
    return notes


def read_note(path: Path) -> bytes:
    """A file that may be a checkpoint.

    Raises:
        DataRejected: it cannot be read, or is too long for one.
    """
    try:
        with path.open("rb") as stream:
            note = stream.read(LARGEST_NOTE + 1)
    except OSError as problem:
        raise DataRejected(f"{path} cannot be read: {problem.strerror}.", "Check the path.") from problem
    if len(note) > LARGEST_NOTE:
        raise DataRejected(f"{path.name} is too long for a checkpoint.", "Take the file of a checkpoint.")
    return note


def _check_extends(link: sqlite3.Connection, size: int, found: Checkpoint) -> None:
    if found.size > size:
        raise LogDamaged(
            f"The audit log has {size} entries; {found.size} were signed on {found.time:%Y-%m-%d %H:%M} UTC.",
            "See all that is wrong with it: cloister audit verify",
        )
    if tree.root(link, found.size) != found.root:
        raise LogDamaged(
            f"The first {found.size} entries of the audit log are not those that were signed on"
            f" {found.time:%Y-%m-%d %H:%M} UTC.",
            "See all that is wrong with it: cloister audit verify",
        )
