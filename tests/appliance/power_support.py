"""What a disk may hold after a power cut: a recording of what was written and flushed, replayed.

Around each flush, rename and removal the tree is looked at, so writes by any route are seen, also those of C
code. In a replay everything that was flushed before the cut is there; of the rest any part may be, in any
order that names what existed, and a file's unflushed bytes may be there in part, or as zeros. Names are
flushed by fsync of the folder that holds them, bytes by fsync of the file (POSIX promises no more; after
ALICE, Pillai et al. 2014). SQLite with synchronous=FULL is taken at its word: what it
committed is flushed.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.core import db

_WATCHED = ("fsync", "rename", "replace", "unlink", "remove", "rmdir", "mkdir")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One change. `what`: "name" (path leads to node `node`; None: to nothing), "bytes" (of a node), "flush"
    (of a node's bytes, or of the names in a folder's node), "commit" (the database's content).
    """

    what: str
    node: int | None = None
    path: str = ""
    content: bytes = b""
    folder: bool = False


@dataclass
class Trace:
    """The steps of one piece of work, and the tree that it began with."""

    root: Path
    steps: list[Step] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    held: dict[int, bytes] = field(default_factory=dict)
    folders: dict[int, bool] = field(default_factory=dict)
    nodes: dict[int, int] = field(default_factory=dict)
    count: int = 0
    start: int = 0

    def look(self) -> None:
        """Note what has changed since the last look."""
        self.nodes.setdefault(self.root.stat().st_ino, 0)
        seen: dict[str, int] = {}
        for path in sorted(self.root.rglob("*")):
            inside = path.relative_to(self.root).as_posix()
            if inside.startswith("cloister.db"):
                continue
            try:
                found = path.lstat()
                content = path.read_bytes() if stat.S_ISREG(found.st_mode) else b""
            except FileNotFoundError:
                continue
            if found.st_ino not in self.nodes:
                self.nodes[found.st_ino] = self.count = self.count + 1
            seen[inside] = node = self.nodes[found.st_ino]
            self.folders[node] = stat.S_ISDIR(found.st_mode)
            if self.names.get(inside) != node:
                self.steps.append(Step(what="name", node=node, path=inside, folder=self.folders[node]))
                self.names = moved(self.names, node, inside)
            if self.held.get(node) != content and not self.folders[node]:
                self.steps.append(Step(what="bytes", node=node, content=content))
                self.held[node] = content
        for gone in sorted(self.names.keys() - seen.keys(), reverse=True):
            self.steps.append(Step(what="name", path=gone))
        self.names, there = seen, {0, *seen.values()}
        self.nodes = {inode: node for inode, node in self.nodes.items() if node in there}  # others come again

    def flushed(self, handle: int) -> None:
        """Note an fsync."""
        node = self.nodes.get(os.fstat(handle).st_ino)
        if node is not None:
            self.steps.append(Step(what="flush", node=node))

    def committed(self, link: sqlite3.Connection) -> None:
        """Note what the database holds."""
        self.steps.append(Step(what="commit", content=link.serialize()))


@contextmanager
def recording(root: Path) -> Iterator[Trace]:
    """The trace of what the block does below `root`; what was there before counts as flushed."""
    trace, real, connect = Trace(root=root), {name: getattr(os, name) for name in _WATCHED}, sqlite3.connect
    trace.look()
    with closing(connect(root / "cloister.db")) as link:
        trace.committed(link)
    trace.start = len(trace.steps)

    class Link(sqlite3.Connection):
        def execute(self, statement: str, *parts: Any) -> sqlite3.Cursor:
            if statement == "COMMIT":
                trace.look()
            done = super().execute(statement, *parts)
            if statement == "COMMIT":
                with closing(connect(root / "cloister.db")) as other:
                    trace.committed(other)
            return done

    def around(name: str) -> Callable[..., Any]:
        def watched(*parts: Any, **rest: Any) -> Any:
            trace.look()
            done = real[name](*parts, **rest)
            if name == "fsync":
                trace.flushed(parts[0])
            trace.look()
            return done

        return watched

    for name in _WATCHED:
        setattr(os, name, around(name))
    db.sqlite3.connect = lambda *parts, **rest: connect(*parts, factory=Link, **rest)  # type: ignore[attr-defined]
    try:
        yield trace
    finally:
        for name, work in real.items():
            setattr(os, name, work)
        db.sqlite3.connect = connect  # type: ignore[attr-defined]
    trace.look()


def cuts(trace: Trace) -> range:
    """Where the power can fail: before the first step, and after each."""
    return range(trace.start, len(trace.steps) + 1)


def replay(trace: Trace, cut: int, target: Path, chance: random.Random | None) -> None:
    """Make `target` what the disk may hold when power fails after `cut` steps.

    Without `chance` nothing that was not flushed is there; with it, each such step is or is not.
    """
    shutil.rmtree(target, ignore_errors=True)
    done = trace.steps[:cut]
    names: dict[str, int] = {}
    content: dict[int, bytes] = {}
    database = b""
    for place, step in enumerate(done):
        if step.what == "commit":
            database = step.content
        elif step.what == "name" and _kept(trace, done, place, step, chance):
            if step.node is None:
                names = {path: node for path, node in names.items() if not _at(path, step.path)}
            else:
                names = moved(names, step.node, step.path)
        elif step.what == "bytes" and step.node is not None:
            if place < trace.start or _later_flush(done, place, step.node):
                content[step.node] = step.content
            elif chance is not None:
                content[step.node] = _torn(step.content, content.get(step.node, b""), chance)
    target.mkdir(mode=0o700)
    for path, node in sorted(names.items()):
        there = target / path
        if not there.parent.is_dir():
            continue  # its folder did not last
        if trace.folders[node]:
            there.mkdir(mode=0o700)
        else:
            there.write_bytes(content.get(node, b""))
    (target / "cloister.db").write_bytes(database)


def moved(names: dict[str, int], node: int, path: str) -> dict[str, int]:
    """`names` once `path` leads to `node`: its old name is gone, what lies in it comes with it."""
    old = next((each for each, held in names.items() if held == node), None)
    kept = {
        each: held for each, held in names.items() if not _at(each, path) and not (old and _at(each, old))
    }
    if old is not None:
        kept |= {path + each[len(old) :]: held for each, held in names.items() if _at(each, old)}
    return kept | {path: node}


def _at(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")


def _kept(trace: Trace, done: list[Step], place: int, step: Step, chance: random.Random | None) -> bool:
    """Whether a name lasts: its folder was flushed later, or by chance."""
    if place < trace.start:
        return True
    folder, holder = step.path.rpartition("/")[0], 0
    for each in done[:place] if folder else ():
        if each.what == "name" and each.path == folder and each.node is not None:
            holder = each.node
    if any(each.what == "flush" and each.node == holder for each in done[place:]):
        return True
    return chance is not None and chance.random() < 0.5


def _later_flush(done: list[Step], place: int, node: int) -> bool:
    return any(each.what == "flush" and each.node == node for each in done[place:])


def _torn(new: bytes, old: bytes, chance: random.Random) -> bytes:
    """What of `new` has come to the disk: all, nothing, a part, or its length alone."""
    how = chance.randrange(4)
    if how == 0:
        return new
    if how == 1:
        return old
    cut = chance.randrange(len(new) + 1)
    return new[:cut] if how == 2 else new[:cut] + bytes(len(new) - cut)
