"""The site's one SQLite file: registry, datasets, jobs, ledger, audit log. No record text in it.

Every change goes through `transaction`, together with its audit line (security/audit.py). On a full
disk `reading` still works, `transaction` raises NoRoom and changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from appliance.core.errors import ApplianceError, Busy, ConfigWrong
from appliance.core.files import disk_full, free_space
from appliance.core.home import Home
from appliance.core.migrations import MIGRATIONS

_FULL_BELOW = 1 << 20  # bytes free; with less, SQLite's "disk I/O error" means a full disk


def connect(home: Home) -> sqlite3.Connection:
    """Open the site's database, brought up to the newest schema.

    Raises:
        NoRoom: the disk is full. Busy: another process holds it. ConfigWrong: it may not be used.
    """
    with _explaining(home):
        return _connect(home)


@contextmanager
def reading(home: Home) -> Iterator[sqlite3.Connection]:
    """A connection for one look.

    Raises:
        NoRoom, Busy, ConfigWrong: as `connect`.
    """
    with _explaining(home), closing(_connect_to_read(home)) as link:
        yield link


@contextmanager
def transaction(home: Home) -> Iterator[sqlite3.Connection]:
    """A connection inside one write transaction: all of it is kept, or nothing.

    Raises:
        NoRoom, Busy, ConfigWrong: as `connect`.
    """
    with _explaining(home), closing(_connect(home)) as link, _all_or_nothing(link):
        yield link


@contextmanager
def writing(home: Home, link: sqlite3.Connection) -> Iterator[None]:
    """One write transaction on a connection that stays open: all of it is kept, or nothing.

    Raises:
        NoRoom, Busy, ConfigWrong: as `connect`.
    """
    with _explaining(home), _all_or_nothing(link):
        yield


def _connect(home: Home) -> sqlite3.Connection:
    link = _open(home)
    try:
        link.execute("PRAGMA journal_mode=WAL")
        link.execute("PRAGMA synchronous=FULL")
        link.execute("PRAGMA foreign_keys=ON")
        _migrate(link)
    except BaseException:
        link.close()
        raise
    return link


def _connect_to_read(home: Home) -> sqlite3.Connection:
    """A full disk has no room for the file that processes share; who is alone can do without it."""
    try:
        return _connect(home)
    except sqlite3.OperationalError as problem:
        if not _is_full(problem, home):
            raise
        link = _open(home)
        try:
            link.execute("PRAGMA locking_mode=EXCLUSIVE")
            link.execute("PRAGMA query_only=ON")
            if _version(link) != len(MIGRATIONS):
                raise
        except BaseException:
            link.close()
            raise
        return link


def _open(home: Home) -> sqlite3.Connection:
    link = sqlite3.connect(home.database, timeout=30, isolation_level=None, check_same_thread=False)
    link.row_factory = sqlite3.Row
    link.execute("PRAGMA temp_store=MEMORY")  # a job may not write where SQLite would put such files
    return link


def _migrate(link: sqlite3.Connection) -> None:
    if _version(link) == len(MIGRATIONS):
        return
    with _all_or_nothing(link):
        version = _version(link)
        for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
            for statement in statements:
                link.execute(statement)
            link.execute(f"PRAGMA user_version={number}")


def _version(link: sqlite3.Connection) -> int:
    return int(link.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def _all_or_nothing(link: sqlite3.Connection) -> Iterator[None]:
    link.execute("BEGIN IMMEDIATE")
    try:
        yield
        link.execute("COMMIT")
    except BaseException:
        if link.in_transaction:  # a full disk has SQLite roll back by itself
            link.execute("ROLLBACK")
        raise


@contextmanager
def _explaining(home: Home) -> Iterator[None]:
    """SQLite's machine troubles become errors of our own; a wrong statement stays what it is."""
    try:
        yield
    except sqlite3.DatabaseError as problem:
        found = _explained(problem, home)
        if found is None:
            raise
        raise found from problem


def _explained(problem: sqlite3.DatabaseError, home: Home) -> ApplianceError | None:
    kind = _kind(problem)
    if _is_full(problem, home):
        return disk_full(home.path)
    if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy(
            f"The database {home.database} is in use by another process.",
            "Try again in a moment; `cloister job list` shows what runs.",
        )
    if kind in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return ConfigWrong(
            f"The database {home.database} cannot be opened for this: {problem}.",
            "Check that this account owns the home folder and may write in it.",
        )
    if kind == sqlite3.SQLITE_IOERR:
        return ApplianceError(
            f"The database {home.database} could not be read or written: {problem}.",
            "Check the disk and its quota, then try again.",
        )
    if kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return ApplianceError(
            f"The database {home.database} is damaged: {problem}.",
            "Restore the home folder from its backup.",
        )
    return None


def _is_full(problem: sqlite3.DatabaseError, home: Home) -> bool:
    kind = _kind(problem)
    if kind == sqlite3.SQLITE_FULL:
        return True
    return kind in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and free_space(home.path) < _FULL_BELOW


def _kind(problem: sqlite3.DatabaseError) -> int:
    """The primary result code; SQLite keeps details in the higher bits. 0: the error has none."""
    return int(getattr(problem, "sqlite_errorcode", 0)) & 0xFF
