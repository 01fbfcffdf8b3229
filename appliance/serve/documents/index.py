"""The index file of one collection: pages of text, passages, words for FTS5, vectors.

A published index is never written again: the next one is made beside it and renamed over it. So it is
opened as immutable, and a kill while the next is made leaves it as it was. FTS5 is SQLite's
full-text search, ranked by Okapi BM25 (sqlite.org/fts5.html).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.core.errors import ApplianceError
from appliance.core.reading import local
from appliance.serve.documents.chunks import Chunk
from appliance.serve.documents.texts import PAGE_BREAK, Page
from appliance.serve.documents.walking import Seen

FORMAT = 1
_LONG = """CREATE TABLE IF NOT EXISTS long (
    chunk INTEGER PRIMARY KEY REFERENCES chunks (id) ON DELETE CASCADE,
    parts INTEGER NOT NULL
)"""  # not in the first indexes of this format, whose readers leave it alone
_SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE files (
        id INTEGER PRIMARY KEY,
        path TEXT NOT NULL UNIQUE,
        stamp TEXT NOT NULL,
        modified REAL NOT NULL,
        size INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        reason TEXT NOT NULL
    )""",
    """CREATE TABLE pages (
        file INTEGER NOT NULL REFERENCES files (id) ON DELETE CASCADE,
        start INTEGER NOT NULL,
        number INTEGER,
        text TEXT NOT NULL,
        PRIMARY KEY (file, start)
    )""",
    """CREATE TABLE chunks (
        id INTEGER PRIMARY KEY,
        file INTEGER NOT NULL REFERENCES files (id) ON DELETE CASCADE,
        page INTEGER,
        start INTEGER NOT NULL,
        end INTEGER NOT NULL,
        vector BLOB
    )""",
    "CREATE INDEX chunks_file ON chunks (file)",
    "CREATE VIRTUAL TABLE words USING fts5"
    " (heading, text, tokenize = 'porter unicode61 remove_diacritics 2')",
    f"PRAGMA user_version = {FORMAT}",
)


@dataclass(frozen=True, kw_only=True)
class File:
    """A row of `files`; `reason` is empty for a file that was read."""

    id: int
    path: str
    stamp: str
    modified: float
    size: int
    sha256: str
    reason: str
    passages: int = 0
    pages: int = 0


@contextmanager
def looking(path: Path) -> Iterator[sqlite3.Connection]:
    """A published index, to read from.

    Raises:
        ApplianceError: it is damaged, or of another version.
    """
    try:
        with closing(sqlite3.connect(f"{local(path).as_uri()}?mode=ro&immutable=1", uri=True)) as link:
            link.row_factory = sqlite3.Row
            link.execute("PRAGMA temp_store = MEMORY")  # what is sorted is text
            if link.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
                raise sqlite3.DatabaseError("another format")
            yield link
    except sqlite3.DatabaseError as problem:
        if isinstance(problem, sqlite3.ProgrammingError):
            raise
        raise ApplianceError(
            f"The index of {path.parent.name} cannot be read.",
            f"Make it anew: cloister docs remove {path.parent.name}, then cloister docs add.",
        ) from problem


@contextmanager
def drafting(path: Path, *, in_memory: bool = False) -> Iterator[sqlite3.Connection]:
    """A draft, to write to; made if missing. Not synced: whoever publishes it does that.

    `in_memory`: what SQLite sets aside meanwhile stays in memory too, not in a file under /tmp.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as link:
        link.row_factory = sqlite3.Row
        if in_memory:
            link.execute("PRAGMA temp_store = MEMORY")
        link.execute("PRAGMA journal_mode = DELETE")
        link.execute("PRAGMA synchronous = OFF")
        link.execute("PRAGMA foreign_keys = ON")
        if link.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
            with together(link):
                for statement in _SCHEMA:
                    link.execute(statement)
        link.execute(_LONG)
        yield link


@contextmanager
def together(link: sqlite3.Connection) -> Iterator[None]:
    """All of the changes inside, or none."""
    link.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        link.execute("ROLLBACK")
        raise
    link.execute("COMMIT")


def usable(path: Path) -> bool:
    """Whether a draft that a kill or a power cut left can be gone on with."""
    try:
        with closing(sqlite3.connect(path)) as link:
            version = link.execute("PRAGMA user_version").fetchone()[0]
            return bool(version == FORMAT and link.execute("PRAGMA quick_check").fetchone()[0] == "ok")
    except sqlite3.DatabaseError:
        return False


def meta(link: sqlite3.Connection) -> dict[str, str]:
    """What is known of the collection as a whole."""
    return {row["key"]: row["value"] for row in link.execute("SELECT key, value FROM meta")}


def set_meta(link: sqlite3.Connection, **values: str) -> None:
    """Say something of the collection as a whole."""
    link.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", values.items())


def files(link: sqlite3.Connection) -> list[File]:
    """Every file that was met, in order of path."""
    rows = link.execute(
        "SELECT files.*, (SELECT COUNT(*) FROM chunks WHERE file = files.id) AS passages,"
        " (SELECT COUNT(number) FROM pages WHERE file = files.id) AS pages FROM files ORDER BY path"
    )
    return [File(**dict(row)) for row in rows]


def in_parts(link: sqlite3.Connection) -> int:
    """How many passages were too long for the embedding model and are embedded in parts."""
    if not link.execute("SELECT 1 FROM sqlite_master WHERE name = 'long'").fetchone():
        return 0
    return int(link.execute("SELECT COUNT(*) FROM long").fetchone()[0])


def drop(link: sqlite3.Connection, path: str) -> None:
    """Forget a file and its passages."""
    link.execute(
        "DELETE FROM words WHERE rowid IN (SELECT chunks.id FROM chunks JOIN files ON files.id = file"
        " WHERE path = ?)",
        (path,),
    )
    link.execute("DELETE FROM files WHERE path = ?", (path,))


def touch(link: sqlite3.Connection, seen: Seen) -> None:
    """The file has another stamp but the same content."""
    link.execute(
        "UPDATE files SET stamp = ?, modified = ? WHERE path = ?", (seen.stamp, seen.modified, seen.path)
    )


def put(
    link: sqlite3.Connection,
    seen: Seen,
    *,
    sha256: str = "",
    reason: str = "",
    pages: Sequence[Page] = (),
    chunks: Sequence[Chunk] = (),
) -> None:
    """Enter a file in place of what was known of it."""
    drop(link, seen.path)
    number = link.execute(
        "INSERT INTO files (path, stamp, modified, size, sha256, reason) VALUES (?, ?, ?, ?, ?, ?)",
        (seen.path, seen.stamp, seen.modified, seen.size, sha256, reason),
    ).lastrowid
    at = 0
    for page in pages:
        row = (number, at, page.number, page.text)
        link.execute("INSERT INTO pages (file, start, number, text) VALUES (?, ?, ?, ?)", row)
        at += len(page.text) + len(PAGE_BREAK)
    for chunk in chunks:
        place = link.execute(
            "INSERT INTO chunks (file, page, start, end) VALUES (?, ?, ?, ?)",
            (number, chunk.page, chunk.start, chunk.end),
        ).lastrowid
        words = (place, chunk.heading, chunk.text)
        link.execute("INSERT INTO words (rowid, heading, text) VALUES (?, ?, ?)", words)
