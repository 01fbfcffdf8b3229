"""Passages and their addresses: "collection/file#start-end@hash".

The offsets count characters in the text of the file whose SHA-256 begins with the hash, so that an
address of yesterday does not open other words today.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from appliance.core.errors import ApplianceError, NotFound
from appliance.core.home import Home
from appliance.serve.documents import index
from appliance.serve.documents.child import MOST_BYTES
from appliance.serve.documents.collections import found_index
from appliance.serve.documents.texts import PAGE_BREAK, Unreadable
from appliance.serve.documents.walking import open_inside

_ADDRESS = re.compile(r"([a-z0-9-]{1,40})/(.+)#([0-9]{1,9})-([0-9]{1,9})(?:@([0-9a-f]{12,64}))?", re.DOTALL)
_HASH = 16  # hexadecimal digits shown
_LONGEST = 20_000


class Changed(ApplianceError):
    """A passage whose file is not the one it was taken from."""

    code = "document-changed"
    exit_code = 4


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A stretch of a document: `text` is exactly its characters `start` to `end`. Higher `score`: better."""

    collection: str
    file: str
    page: int | None
    start: int
    end: int
    heading: str = field(repr=False)
    text: str = field(repr=False)
    score: float
    sha256: str = ""

    @property
    def address(self) -> str:
        """What opens this very passage again."""
        tail = f"@{self.sha256[:_HASH]}" if self.sha256 else ""
        return f"{self.collection}/{self.file}#{self.start}-{self.end}{tail}"


@dataclass(frozen=True, kw_only=True)
class Address:
    """The parts of an address; `sha256` holds its first digits, or nothing."""

    collection: str
    file: str
    start: int
    end: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A passage with what stands around it. `checked`: the file was there and is unchanged.

    It is False where the whole folder is away, as an unmounted share; the text is then as indexed.
    """

    passage: Passage
    before: str = field(repr=False)
    after: str = field(repr=False)
    checked: bool


def parse_address(address: str) -> Address:
    """The parts of `address`.

    Raises:
        NotFound: it is none.
    """
    found = _ADDRESS.fullmatch(address) if len(address) < 5000 else None
    if found is None or not 0 < int(found[4]) - int(found[3]) <= _LONGEST:
        raise NotFound(
            "This is not the address of a passage.", "Copy it whole, such as: policies/leave.txt#120-480"
        )
    return Address(
        collection=found[1], file=found[2], start=int(found[3]), end=int(found[4]), sha256=found[5] or ""
    )


def open_passage(
    home: Home, address: str, *, allowed: Collection[str] | None = None, around: int = 400
) -> Opened:
    """The exact text at `address`, with up to `around` characters before and after it.

    `allowed`: the collections that may be opened; one that may not is not told from one that is not there.

    Raises:
        NotFound: there is no such passage. Changed: its file changed since, or was removed.
    """
    asked = parse_address(address)
    if allowed is not None and asked.collection not in allowed:
        raise NotFound(f"There is no collection {asked.collection}.", "See `cloister docs list`.")
    with index.looking(found_index(home, asked.collection)) as link:
        folder = Path(index.meta(link)["folder"])
        row = link.execute(
            "SELECT id, sha256 FROM files WHERE path = ? AND reason = ''", (asked.file,)
        ).fetchone()
        if row is None:
            raise NotFound(
                f"{asked.collection} holds no such file.", f"See `cloister docs show {asked.collection}`."
            )
        if not row["sha256"].startswith(asked.sha256):
            raise _changed()
        checked = _check(folder, asked.file, row["sha256"])
        low, high = max(0, asked.start - around), asked.end + around
        pages = link.execute(
            "SELECT start, number, text FROM pages WHERE file = ? AND start < ?"
            " AND start + length(text) > ? ORDER BY start",
            (row["id"], high, low),
        ).fetchall()
        text = PAGE_BREAK.join(page["text"] for page in pages)
        first = pages[0]["start"] if pages else 0
        exact = text[asked.start - first : asked.end - first] if asked.start >= first else ""
        if len(exact) != asked.end - asked.start:
            raise NotFound("The file has no such place.", "Copy the address whole.")
        chunk = link.execute(
            "SELECT page, heading FROM chunks JOIN words ON words.rowid = chunks.id"
            " WHERE file = ? AND start <= ? ORDER BY start DESC LIMIT 1",
            (row["id"], asked.start),
        ).fetchone()
    passage = Passage(
        collection=asked.collection,
        file=asked.file,
        page=chunk["page"] if chunk else None,
        start=asked.start,
        end=asked.end,
        heading=chunk["heading"] if chunk else "",
        text=exact,
        score=0.0,
        sha256=row["sha256"],
    )
    return Opened(
        passage=passage,
        before=text[max(0, low - first) : asked.start - first],
        after=text[asked.end - first : high - first],
        checked=checked,
    )


def _check(folder: Path, path: str, sha256: str) -> bool:
    """Whether the file is there and unchanged; False when its whole folder is away."""
    import hashlib

    if not folder.is_dir():
        return False
    try:
        handle = open_inside(folder, path)
    except Unreadable:
        raise _changed() from None
    with os.fdopen(handle, "rb") as stream:
        if os.fstat(handle).st_size > MOST_BYTES:
            raise _changed()
        if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
            raise _changed()
    return True


def _changed() -> Changed:
    return Changed(
        "The file changed since this passage was taken from it, or was removed.",
        "Index it again (cloister docs add), then ask again.",
    )
