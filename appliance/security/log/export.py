"""Entries of the audit log in a file that proves itself: no database is needed to check it.

JSON lines. The first: {"format", "first", "last", "checkpoint"}, the checkpoint being a signed note
(checkpoint.py). Then an entry a line, {"seq", "entry", "proof"}: the entry's text as it stands in the
log, and its RFC 9162 inclusion proof under the checkpoint's root (base64, leaf to root). Any single entry
can be handed on with the first line.
"""

from __future__ import annotations

import base64
import binascii
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from appliance.core.db import reading, transaction
from appliance.core.errors import ConfigWrong, DataRejected, LogDamaged
from appliance.core.files import replacing
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.log import merkle, tree, witness
from appliance.security.log.checkpoint import Checkpoint, LogKey, Verifier, origin_of, read

FORMAT = "cloister-audit-export-1"
_LONGEST_LINE = 4 << 20  # bytes
_BATCH = 1000


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Entries `first` to `last`, shown to be in the log that `checkpoint` is of."""

    first: int
    last: int
    checkpoint: Checkpoint


def export(
    home: Home,
    path: Path,
    key: LogKey,
    *,
    who: str,
    clock: Callable[[], datetime],
    first: int = 1,
    last: int | None = None,
    older: Sequence[Verifier] = (),
) -> Exported:
    """Write entries `first` to `last` (the newest) to `path`, which must not exist; private to this account.

    The export is an entry of its own, and the last one when `last` is left out.

    Raises:
        ConfigWrong: there are no such entries, or the path is taken.
        LogDamaged: the log is not what was signed before.
    """
    if path.exists():
        raise ConfigWrong(f"{path} is there already.", "Choose another file.")
    if not path.parent.is_dir():
        raise ConfigWrong(f"{path.parent} is no folder.", "Make it first, or choose another.")
    with transaction(home) as link:
        size = tree.catch_up(link)
        if not 1 <= first <= (last or first) <= size:
            raise ConfigWrong(f"The log has entries 1 to {size}.", "Ask for some of these.")
        told = f"{first} to {last or size + 1}"
        audit.record(link, who=who, what="audit.export", target=path.name, entries=told)
        point = witness.make_in(link, home, key, clock=clock, older=older)
    found = Exported(first=first, last=last or point.size, checkpoint=point)
    with replacing(path) as draft, reading(home) as link:
        draft.touch(mode=0o600)
        draft.chmod(0o600)
        with draft.open("w", encoding="ascii") as stream:
            head = {"format": FORMAT, "first": found.first, "last": found.last}
            stream.write(_line(head | {"checkpoint": point.note.decode()}))
            for seq, entry, proof in _proven(link, found):
                stream.write(_line({"seq": seq, "entry": entry, "proof": proof}))
    return found


def verify_export(path: Path, public_key: bytes | Sequence[Verifier]) -> Exported:
    """Check an exported file against the raw Ed25519 key of its site, or the keys known of several.

    Constant memory. Every entry of first..last is there, once, in order, and in the signed log.

    Raises:
        LogDamaged: an entry is not in the log, or one is missing or too many; it says which.
        DataRejected: this is no export, or its checkpoint's signature is wrong or a stranger's.
    """
    with _opened(path) as stream:
        lines = _lines(stream)
        head = _object(next(lines, b""), {"format": str, "first": int, "last": int, "checkpoint": str}, 1)
        if head["format"] != FORMAT:
            raise _malformed(1)
        note = head["checkpoint"].encode()
        keys = (
            [Verifier(name=origin_of(note), public=public_key)]
            if isinstance(public_key, bytes)
            else public_key
        )
        found = Exported(first=head["first"], last=head["last"], checkpoint=read(note, keys))
        if not 1 <= found.first <= found.last <= found.checkpoint.size:
            raise _malformed(1)
        due = found.first
        for number, line in enumerate(lines, start=2):
            one = _object(line, {"seq": int, "entry": str, "proof": list}, number)
            if due > found.last:
                raise LogDamaged(f"{path.name} has an entry too many after {found.last}.", _HINT)
            if one["seq"] != due:
                raise LogDamaged(f"{path.name} should have entry {due} in line {number}.", _HINT)
            leaf = merkle.leaf_hash(one["entry"].encode("utf-8", "surrogatepass"))
            proof = [_hash(step, number) for step in one["proof"]]
            point = found.checkpoint
            if not merkle.check_inclusion(leaf, due - 1, point.size, proof, point.root):
                raise LogDamaged(f"Entry {due} in {path.name} is not what the log holds.", _HINT)
            due += 1
        if due <= found.last:
            raise LogDamaged(f"{path.name} ends before entry {due}; it should go on to {found.last}.", _HINT)
    return found


def head_note(path: Path) -> bytes | None:
    """The checkpoint that an exported file brings; None if the file is no export.

    Raises:
        DataRejected: it cannot be read.
    """
    with _opened(path) as stream:
        line = stream.readline(_LONGEST_LINE)
    try:
        head = json.loads(line)
        return str(head["checkpoint"]).encode() if head["format"] == FORMAT else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def compare(home: Home, path: Path, keys: Sequence[Verifier]) -> Exported:
    """Hold an exported file, checked first, against the log it is of, entry by entry.

    Raises:
        LogDamaged: the log holds something else; it says which entry.
        DataRejected: as `verify_export`.
    """
    found = verify_export(path, keys)
    with _opened(path) as stream, reading(home) as link:
        lines = _lines(stream)
        next(lines)
        link.execute("BEGIN")
        for number, line in enumerate(lines, start=2):
            one = _object(line, {"seq": int, "entry": str, "proof": list}, number)
            row = link.execute("SELECT entry FROM audit WHERE seq = ?", (one["seq"],)).fetchone()
            if row is None or row[0] != one["entry"]:
                what = "is missing here" if row is None else "was changed here"
                raise LogDamaged(
                    f"Entry {one['seq']} {what}: {path.name} proves what it was.",
                    "Keep that file, and see all that is wrong: cloister audit verify",
                )
    return found


_HINT = "Take another copy of the file; if it is the same, ask the site that gave it."


def _proven(link: sqlite3.Connection, found: Exported) -> Iterator[tuple[int, str, list[str]]]:
    node = lru_cache(maxsize=4096)(tree.node(link))  # proofs of neighbours are the same but for the ends
    size, seq = found.checkpoint.size, found.first
    while seq <= found.last:
        rows = link.execute(
            "SELECT seq, entry FROM audit WHERE seq >= ? AND seq <= ? ORDER BY seq LIMIT ?",
            (seq, found.last, _BATCH),
        ).fetchall()
        for row in rows:
            proof = merkle.inclusion(seq - 1, size, node)
            leaf = merkle.leaf_hash(row["entry"].encode("utf-8", "surrogatepass"))
            if row["seq"] != seq or not merkle.check_inclusion(
                leaf, seq - 1, size, proof, found.checkpoint.root
            ):
                break
            yield seq, row["entry"], [base64.b64encode(step).decode() for step in proof]
            seq += 1
        else:
            if rows:
                continue
        raise LogDamaged(
            f"The audit log is damaged: entry {seq} is not what the tree holds.",
            "See all that is wrong with it: cloister audit verify",
        )


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":")) + "\n"


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as problem:
        raise DataRejected(f"{path} cannot be read: {problem.strerror}.", "Check the path.") from problem


def _lines(stream: Any) -> Iterator[bytes]:
    while line := stream.readline(_LONGEST_LINE):
        yield line


def _object(line: bytes, form: dict[str, type], number: int) -> dict[str, Any]:
    """A line with exactly the members of `form`, written as `export` writes it: no member twice."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise _malformed(number) from None
    if not isinstance(found, dict) or list(found) != list(form):
        raise _malformed(number)
    if any(type(found[name]) is not kind for name, kind in form.items()) or _line(found).encode() != line:
        raise _malformed(number)
    return found


def _hash(code: Any, number: int) -> bytes:
    try:
        found = base64.b64decode(code, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise _malformed(number) from None
    if len(found) != 32:
        raise _malformed(number)
    return found


def _malformed(number: int) -> DataRejected:
    return DataRejected(
        f"Line {number} is not that of an exported audit log.", "Take another copy of the file."
    )
