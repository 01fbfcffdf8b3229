"""Brings a collection's index up to what its folder holds now; reads only what changed.

The work goes into a draft beside the index, one file after the other, each whole or not at all. At the
end the draft is packed (what was removed is not in it any more), synced and renamed over the index. A kill
leaves the old index as it was and the draft, with which the same job goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.events import now
from appliance.core.files import disk_full, move_in, need_room, sync, telling_full, work_folder
from appliance.core.home import Home
from appliance.core.reading import copy_plain, size_of
from appliance.core.sealing import place as where_sealed
from appliance.security import audit
from appliance.serve.documents import index
from appliance.serve.documents.child import MOST_BYTES, Limits, Reader
from appliance.serve.documents.chunks import chunks
from appliance.serve.documents.collections import index_path, locked
from appliance.serve.documents.embedding import Embedder
from appliance.serve.documents.reading import VERSION, kind_of
from appliance.serve.documents.texts import Unreadable
from appliance.serve.documents.walking import Seen, open_inside, survey

MOST_PASSAGES = 200_000  # vectors are searched one by one
_TOGETHER = 32  # texts embedded at once
_HEADING = 400  # characters of a heading that are embedded with each of its passages
Say = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """What an update did: counts of files that were read, all passages, and why other files were left out.

    `in_parts`: passages that were too long for the embedding model, each part of them embedded by itself.
    """

    collection: str
    added: int = 0
    changed: int = 0
    removed: int = 0
    same: int = 0
    passages: int = 0
    in_parts: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    embedder: str = ""


def check_folder(home: Home, collection: str, folder: Path) -> Path:
    """The folder to index, its path with all links resolved.

    Raises:
        NotFound: it is not there. ConfigWrong: it is no folder, is or holds the site's own home, or the
        collection is of another folder.
    """
    path = folder.expanduser().resolve()
    if not path.exists():
        raise NotFound(f"There is no folder {path}.", "Check the path; a share may not be mounted.")
    if path.is_file():
        raise ConfigWrong(f"{path} is a file, not a folder.", f"Give its folder: {path.parent}")
    own = home.path.resolve()
    if not path.is_dir() or path == own or own in path.parents or path in own.parents:
        raise ConfigWrong(
            f"{path} cannot be a collection.", "Name a folder that holds documents and not this site's home."
        )
    try:
        os.scandir(path).close()
        str(path).encode()
    except (OSError, UnicodeEncodeError) as problem:
        raise ConfigWrong(f"{path!r} cannot be read.", "Check the rights of the folder.") from problem
    known = source(home, collection)
    if known not in (None, path):
        raise ConfigWrong(
            f"The collection {collection} is made from {known}.",
            f"Choose another --collection, or first: cloister docs remove {collection}",
        )
    return path


def source(home: Home, collection: str) -> Path | None:
    """The folder a collection is made from, None if there is no such collection."""
    path = index_path(home, collection)
    if not path.is_file():
        return None
    with index.looking(path) as link:
        return Path(index.meta(link)["folder"])


def stale(home: Home, collection: str) -> int:
    """How many files were added, changed or removed since the collection was indexed; opens none.

    Raises:
        NotFound: its folder is not there. DataRejected: it holds too many files.
    """
    folder = source(home, collection)
    if folder is None or not folder.is_dir():
        raise NotFound(f"The folder of {collection} is not there.", "A share may not be mounted.")
    with index.looking(index_path(home, collection)) as link:
        known = {file.path: file.stamp for file in index.files(link)}
    seen = {file.path: file.stamp for file in _wanted(folder).values()}
    return sum(known.get(path) != seen.get(path) for path in known.keys() | seen.keys())


def update(
    home: Home,
    collection: str,
    folder: Path,
    *,
    job: str,
    who: str,
    embedder: Embedder | None = None,
    say: Say = lambda stage, done, total: None,
    limits: Limits | None = None,
) -> Indexed:
    """Index `folder` as `collection`; without `embedder` it is searched by keywords only.

    `job` names the draft: the same job, started again after a kill, goes on with it.

    Raises:
        NotFound, ConfigWrong: as `check_folder`. Busy: another job indexes the collection.
        DataRejected: too many files. NoRoom: the disk is full. EngineFailed: the embedder failed.
    """
    folder = check_folder(home, collection, folder)
    with (
        locked(home, collection) as place,
        telling_full(place),
        _telling_sqlite_full(place),
        ExitStack() as held,
    ):
        published, draft = place / "index.db", held.enter_context(_draft(place, job))
        sealed = draft.parent != place
        _clear(place, keep=draft.name)
        going_on = draft.exists() and index.usable(draft)
        before = _contents(published)
        if not going_on:
            draft.unlink(missing_ok=True)
            if published.exists():
                need_room(place, 2 * size_of(published))
                copy_plain(published, draft)
        with index.drafting(draft, in_memory=sealed) as link:
            was = {key: index.meta(link).get(key) for key in ("folder", "embedder")}
            _fill(link, folder, embedder, say, limits or Limits())
            about = {"folder": str(folder), "embedder": embedder.id if embedder else ""}
            name = embedder.name if embedder else ""
            index.set_meta(link, **about, embedder_name=name, updated=now())
            done = _difference(link, collection, before, name)
            touched = was != about or done.added + done.changed + done.removed > 0
            if touched or going_on:
                say("pack", 0, 1)
                link.execute("INSERT INTO words (words) VALUES ('optimize')")
                link.execute("VACUUM")
                say("pack", 1, 1)
        sync(draft)
        with transaction(home) as record:
            if touched:
                audit.record(
                    record,
                    who=who,
                    what="docs.add",
                    target=collection,
                    added=done.added,
                    changed=done.changed,
                    removed=done.removed,
                    passages=done.passages,
                    in_parts=done.in_parts,
                    embedder=about["embedder"],
                )
            move_in(draft, published)
    return done


def _fill(
    link: sqlite3.Connection, folder: Path, embedder: Embedder | None, say: Say, limits: Limits
) -> None:
    """Bring the draft up to what `folder` holds."""
    wanted = _wanted(folder)
    known = {file.path: file for file in index.files(link)}
    told = index.meta(link)
    with index.together(link):
        if told.get("version", str(VERSION)) != str(VERSION):
            for path in known:
                index.drop(link, path)
            known = {}
        index.set_meta(link, version=str(VERSION))
        for path in known.keys() - wanted.keys():
            index.drop(link, path)
    say("read", 0, len(wanted))
    with Reader(limits) as reader:
        for number, seen in enumerate(wanted.values(), start=1):
            _take(link, reader, folder, seen, known.get(seen.path))
            say("read", number, len(wanted))
    _embed(link, embedder, told.get("drafted", ""), say)


def _contents(path: Path) -> dict[str, str]:
    """The files that a published index can cite, and their hashes."""
    if not path.exists():
        return {}
    with index.looking(path) as link:
        return {file.path: file.sha256 for file in index.files(link) if not file.reason}


def _difference(link: sqlite3.Connection, collection: str, before: dict[str, str], embedder: str) -> Indexed:
    """What is new against the published index, also when the work was done in several goes."""
    files = index.files(link)
    after = {file.path: file.sha256 for file in files if not file.reason}
    both = before.keys() & after.keys()
    changed = sum(before[path] != after[path] for path in both)
    return Indexed(
        collection=collection,
        added=len(after.keys() - before.keys()),
        changed=changed,
        removed=len(before.keys() - after.keys()),
        same=len(both) - changed,
        passages=sum(file.passages for file in files),
        in_parts=index.in_parts(link),
        left_out=dict(Counter(file.reason for file in files if file.reason).most_common()),
        embedder=embedder,
    )


def _take(link: sqlite3.Connection, reader: Reader, folder: Path, seen: Seen, old: index.File | None) -> None:
    """Bring one file up to date, whole or not at all."""
    if old is not None and old.stamp == seen.stamp and old.reason == (seen.reason or old.reason):
        return
    try:
        if seen.reason or not seen.size or seen.size > MOST_BYTES:
            too_large = f"larger than {MOST_BYTES >> 20} MB"
            raise Unreadable(seen.reason or (too_large if seen.size else "empty"))
        handle = open_inside(folder, seen.path)
        try:
            sha256, pages = reader.read(handle, kind_of(seen.path))
        finally:
            os.close(handle)
        cut = chunks(pages)
        if link.execute("SELECT COUNT(*) FROM chunks").fetchone()[0] + len(cut) > MOST_PASSAGES:
            raise Unreadable(f"the collection would have more than {MOST_PASSAGES:,} passages")
    except Unreadable as problem:
        with index.together(link):
            index.put(link, seen, reason=problem.reason)
        return
    with index.together(link):
        if old is not None and old.sha256 == sha256:
            index.touch(link, seen)
        else:
            index.put(link, seen, sha256=sha256, pages=pages, chunks=cut)


def _embed(link: sqlite3.Connection, embedder: Embedder | None, drafted: str, say: Say) -> None:
    """Every passage gets a vector of `embedder`, or none has one."""
    with index.together(link):
        if embedder is None or embedder.id != drafted:
            link.execute("UPDATE chunks SET vector = NULL WHERE vector IS NOT NULL")
            link.execute("DELETE FROM long")
        index.set_meta(link, drafted=embedder.id if embedder else "")
    if embedder is None:
        return
    from appliance.serve.documents.vectors import packed, unit_vectors

    total = link.execute("SELECT COUNT(*) FROM chunks").fetchone()[0]
    missing = [row["id"] for row in link.execute("SELECT id FROM chunks WHERE vector IS NULL ORDER BY id")]
    done = total - len(missing)
    say("embed", done, total)
    for at in range(0, len(missing), _TOGETHER):
        part = missing[at : at + _TOGETHER]
        rows = link.execute(
            "SELECT heading, text FROM words WHERE rowid IN (SELECT value FROM json_each(?)) ORDER BY rowid",
            (json.dumps(part),),
        )
        texts = [f"{row['heading'][:_HEADING]}\n{row['text']}".strip() for row in rows]
        vectors = packed(unit_vectors(embedder, texts))
        long = [pair for pair in zip(part, embedder.parts(texts), strict=True) if pair[1] > 1]
        with index.together(link):
            link.executemany(
                "UPDATE chunks SET vector = ? WHERE id = ?",
                list(zip(vectors, part, strict=True)),
            )
            link.executemany("INSERT OR REPLACE INTO long (chunk, parts) VALUES (?, ?)", long)
        say("embed", done + at + len(part), total)


def _wanted(folder: Path) -> dict[str, Seen]:
    """What the folder holds, by path; of two that are shown alike, the one that can be read."""
    found = survey(folder)
    return {seen.path: seen for seen in sorted(found, key=lambda seen: (not seen.reason, seen.path))}


def _clear(place: Path, *, keep: str) -> None:
    """Remove drafts of other jobs: the lock says that none of them runs."""
    for file in place.glob("draft-*"):
        if not file.name.startswith(keep):
            file.unlink(missing_ok=True)


@contextmanager
def _draft(place: Path, job: str) -> Iterator[Path]:
    """Where the draft lies: beside the index, or where that is sealed in memory, so that a kill loses it."""
    draft = place / f"draft-{job}.db"
    if where_sealed(draft) is None:
        yield draft
        return
    folder = work_folder(draft)
    try:
        yield folder / draft.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _telling_sqlite_full(place: Path) -> Iterator[None]:
    """Turn SQLite's "database or disk is full" into NoRoom."""
    try:
        yield
    except sqlite3.OperationalError as problem:
        if getattr(problem, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_FULL:
            raise
        raise disk_full(place) from problem
