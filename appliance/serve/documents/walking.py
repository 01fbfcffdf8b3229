"""The files of a folder, without being led out of it: no link is followed, no pipe opened.

Files and folders whose names begin with a dot are not looked at.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from appliance.core.errors import DataRejected
from appliance.serve.documents.reading import kind_of
from appliance.serve.documents.texts import Unreadable

MOST_FILES = 20_000
OTHER_KIND = "not of a kind that is read"
_DEEPEST = 64
_BIDI = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F}  # they reorder what is shown


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A file as the folder shows it. `stamp` changes when its content may have; `reason`: why not read."""

    path: str
    stamp: str = ""
    modified: float = 0.0
    size: int = 0
    reason: str = ""


def survey(folder: Path) -> list[Seen]:
    """Every file below `folder`, in order of name; opens none.

    Raises:
        DataRejected: more than MOST_FILES.
    """
    found: list[Seen] = []
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        try:
            entries = sorted(os.scandir(folder / inside), key=lambda entry: entry.name)
        except OSError as problem:
            found.append(Seen(path=_shown(inside), reason=f"no access ({problem.strerror})"))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = f"{inside}/{entry.name}" if inside else entry.name
            if entry.is_dir(follow_symlinks=False) and not _bad_name(entry.name):
                if path.count("/") < _DEEPEST:
                    waiting.append(path)
                else:
                    found.append(Seen(path=path, reason="too deep a folder"))
            else:
                found.append(_seen(entry, path))
            if len(found) + len(waiting) > MOST_FILES:
                raise DataRejected(
                    f"{folder} holds more than {MOST_FILES:,} files.",
                    "Name the folder of the documents alone, or make several collections.",
                )
    return sorted(found, key=lambda seen: seen.path)


def open_inside(folder: Path, path: str) -> int:
    """An open handle of the regular file `path` below `folder`; no step of the way may be a link.

    Raises:
        Unreadable: it is none, or not there.
    """
    *steps, name = path.split("/")
    handle = -1
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for step in steps:
            _check_step(step)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(step, flags, dir_fd=handle)
            os.close(handle)
            handle = below
        _check_step(name)
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handle)
    except OSError as problem:
        raise Unreadable(f"cannot be opened ({problem.strerror})") from None
    finally:
        if handle >= 0:
            os.close(handle)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise Unreadable("not a regular file")
    return file


def stamp_of(found: os.stat_result) -> str:
    """What changes when a file's content may have changed; a copied-back time does not hide a change."""
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}:{found.st_ino}"


def _seen(entry: os.DirEntry[str], path: str) -> Seen:
    if why := _bad_name(entry.name):
        return Seen(path=_shown(path), reason=why)
    try:
        facts = entry.stat(follow_symlinks=False)
    except OSError as problem:
        return Seen(path=path, reason=f"no access ({problem.strerror})")
    reason = ""
    if stat.S_ISLNK(facts.st_mode):
        reason = "a link; links are not followed"
    elif not stat.S_ISREG(facts.st_mode):
        reason = "not a regular file"
    elif entry.name.startswith("~$"):
        reason = "a lock file of an open document"
    elif not kind_of(entry.name):
        reason = OTHER_KIND
    return Seen(path=path, stamp=stamp_of(facts), modified=facts.st_mtime, size=facts.st_size, reason=reason)


def _bad_name(name: str) -> str:
    """Names are shown on terminals and given to models; this says why one may not be."""
    kinds = {unicodedata.category(char) for char in name}
    if "Cs" in kinds:
        return "its name is not UTF-8"
    if kinds & {"Cc", "Zl", "Zp"} or any(ord(char) in _BIDI for char in name):
        return "its name holds control characters"
    return ""


def _shown(path: str) -> str:
    return "".join(
        "?" if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or ord(char) in _BIDI else char
        for char in path
    )


def _check_step(step: str) -> None:
    if step in ("", ".", "..") or "\0" in step:
        raise Unreadable("not a path inside the folder")
