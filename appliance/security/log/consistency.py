"""A file which proves that a log only grew: nothing of what it was at an older size was changed or taken out.

One JSON object on one line, written one way only: {"format", "from", "to", "root", "proof", "checkpoint",
"older"}. `root` is that of the first `from` entries and `proof` the RFC 9162 consistency proof (RFC 6962
section 2.1.2) from there to `to` entries, both base64; `checkpoint` is the signed note at `to`, `older` the
one at `from` where the site has signed or got back one ("" else). No database is needed to check it; whoever
kept a checkpoint of the older size holds the proof against that, and trusts the site in nothing.
"""

from __future__ import annotations

import base64
import binascii
import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong, DataRejected, LogDamaged
from appliance.core.files import write_private
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.log import merkle, tree, witness
from appliance.security.log.checkpoint import Checkpoint, LogKey, Verifier, origin_of, read, verifier

FORMAT = "cloister-audit-consistency-1"
_LONGEST = 64 << 10  # bytes: two notes and 53 hashes are less
_FORM = {"format": str, "from": int, "to": int, "root": str, "proof": list, "checkpoint": str, "older": str}


@dataclass(frozen=True, kw_only=True)
class Proven:
    """The log of `checkpoint` begins with the `first` entries under `root`. `against`: whose word `root` is:
    "held" (a checkpoint kept elsewhere), "signed" (one that came in the file) or "claimed" (nobody's)."""

    first: int
    root: bytes
    against: str
    checkpoint: Checkpoint


def prove(
    home: Home,
    path: Path,
    key: LogKey,
    *,
    who: str,
    clock: Callable[[], datetime],
    first: int,
    last: int | None = None,
    older: Sequence[Verifier] = (),
) -> Proven:
    """Write the proof from `first` to `last` entries to `path`, which must not exist.

    Without `last` it goes to a new checkpoint, which has an entry of its own; else to one signed before.

    Raises:
        ConfigWrong: no such entries, no checkpoint of `last` entries, or the path is taken.
        LogDamaged: the log is not what was signed before.
    """
    if path.exists() or not path.parent.is_dir():
        why = "is there already" if path.exists() else "lies in no folder"
        raise ConfigWrong(f"{path} {why}.", "Choose another file.")
    with transaction(home) as link:
        size = tree.catch_up(link)
        if not 1 <= first <= (last or size) <= size:
            raise ConfigWrong(f"The log has entries 1 to {size}.", "Ask for sizes among these.")
        told = f"{first} to {last or size + 1}"
        audit.record(link, who=who, what="audit.prove", target=path.name, entries=told)
        if last is None:
            point = witness.make_in(link, home, key, clock=clock, older=older)
        else:
            point = _signed(link, last, [verifier(key), *older])
        node = tree.node(link)
        root, proof = merkle.root(first, node), merkle.consistency(first, point.size, node)
        if not merkle.check_consistency(first, point.size, root, point.root, proof):
            raise LogDamaged(
                f"The audit log is damaged: it does not lead from {first} to {point.size} entries.",
                "See all that is wrong with it: cloister audit verify",
            )
        before = _note_at(link, first, root, key.name)
    held = {
        "format": FORMAT,
        "from": first,
        "to": point.size,
        "root": _encode(root),
        "proof": [_encode(step) for step in proof],
        "checkpoint": point.note.decode(),
        "older": before,
    }
    write_private(path, _line(held))
    return Proven(first=first, root=root, against="signed" if before else "claimed", checkpoint=point)


def check(path: Path, keys: Sequence[Verifier] | bytes, *, held: bytes | None = None) -> Proven:
    """Check a proof with the keys of its site, or its raw Ed25519 key; `held` is a checkpoint kept elsewhere.

    Raises:
        LogDamaged: the log does not extend the older one. ConfigWrong: `held` is of another size.
        DataRejected: this is no proof, or a signature in it is wrong or a stranger's.
    """
    told = _read(path)
    note, older = told["checkpoint"].encode(), told["older"].encode()
    known = [Verifier(name=origin_of(note), public=keys)] if isinstance(keys, bytes) else keys
    point, root = read(note, known), _decode(told["root"])
    if point.size != told["to"]:
        raise _malformed()
    against = "claimed"
    for which, one in (("signed", older or None), ("held", held)):
        if one is None:
            continue
        before = read(one, known)
        if before.origin != point.origin or before.size != told["from"]:
            raise ConfigWrong(
                f"The {which} checkpoint is of {before.size} entries of {before.origin}, the proof begins at"
                f" {told['from']} of {point.origin}.",
                f"Ask the site: cloister audit prove-consistency --from {before.size} FILE",
            )
        if before.root != root:
            raise LogDamaged(
                f"The first {before.size} entries of {point.origin} are not those that were signed on"
                f" {before.time:%Y-%m-%d %H:%M} UTC: history was rewritten.",
                "Keep both files: together they prove it.",
            )
        against = which
    proof = [_decode(step) for step in told["proof"]]
    if not merkle.check_consistency(told["from"], point.size, root, point.root, proof):
        raise LogDamaged(
            f"The log of {point.origin} with {point.size} entries does not begin with the {told['from']} of"
            " before: entries were changed, taken out, or put in.",
            "Take another copy of the file; if it is the same, ask the site that gave it.",
        )
    return Proven(first=told["from"], root=root, against=against, checkpoint=point)


def _signed(link: sqlite3.Connection, size: int, keys: Sequence[Verifier]) -> Checkpoint:
    row = link.execute("SELECT note FROM checkpoints WHERE size = ?", (size,)).fetchone()
    if row is None:
        sizes = [
            str(one[0]) for one in link.execute("SELECT size FROM checkpoints ORDER BY size DESC LIMIT 5")
        ]
        raise ConfigWrong(
            f"No checkpoint of {size} entries was signed; the newest are of {', '.join(sizes) or 'none'}.",
            "Choose one of these with --to, or leave --to out.",
        )
    return read(str(row["note"]).encode(), keys)


def _note_at(link: sqlite3.Connection, size: int, root: bytes, origin: str) -> str:
    row = link.execute(
        "SELECT note FROM checkpoints WHERE size = ? AND root = ?"
        " UNION SELECT note FROM witnesses WHERE size = ? AND root = ? AND origin = ? LIMIT 1",
        (size, root.hex(), size, root.hex(), origin),
    ).fetchone()
    return str(row["note"]) if row else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            content = stream.read(_LONGEST + 1)
    except OSError as problem:
        raise DataRejected(f"{path} cannot be read: {problem.strerror}.", "Check the path.") from problem
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise _malformed() from None
    if not isinstance(found, dict) or list(found) != list(_FORM) or found["format"] != FORMAT:
        raise _malformed()
    if any(type(found[name]) is not kind for name, kind in _FORM.items()) or _line(found) != content:
        raise _malformed()
    return found


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decode(code: Any) -> bytes:
    try:
        found = base64.b64decode(code, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise _malformed() from None
    if len(found) != 32:
        raise _malformed()
    return found


def _malformed() -> DataRejected:
    return DataRejected("This is no proof that a log only grew.", "Take another copy of the file.")
