"""The site's one SQLite file: registry, datasets, jobs, ledger, audit log. No record text in it.

Every change goes through `transaction`, together with its audit line (security/audit.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from appliance.core.home import Home
from appliance.core.migrations import MIGRATIONS


def connect(home: Home) -> sqlite3.Connection:
    """Open the site's database, brought up to the newest schema."""
    link = sqlite3.connect(home.database, timeout=30, isolation_level=None, check_same_thread=False)
    link.row_factory = sqlite3.Row
    link.execute("PRAGMA journal_mode=WAL")
    link.execute("PRAGMA synchronous=FULL")
    link.execute("PRAGMA foreign_keys=ON")
    _migrate(link)
    return link


@contextmanager
def reading(home: Home) -> Iterator[sqlite3.Connection]:
    """A connection for one look."""
    with closing(connect(home)) as link:
        yield link


@contextmanager
def transaction(home: Home) -> Iterator[sqlite3.Connection]:
    """A connection inside one write transaction: all of it is kept, or nothing."""
    with closing(connect(home)) as link:
        link.execute("BEGIN IMMEDIATE")
        try:
            yield link
        except BaseException:
            link.execute("ROLLBACK")
            raise
        link.execute("COMMIT")


def _migrate(link: sqlite3.Connection) -> None:
    version = link.execute("PRAGMA user_version").fetchone()[0]
    if version == len(MIGRATIONS):
        return
    link.execute("BEGIN IMMEDIATE")
    try:
        version = link.execute("PRAGMA user_version").fetchone()[0]
        for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
            for statement in statements:
                link.execute(statement)
            link.execute(f"PRAGMA user_version={number}")
    except BaseException:
        link.execute("ROLLBACK")
        raise
    link.execute("COMMIT")
