"""What is known of audit logs that were damaged and set aside: the first entry of the next log tells it.

That entry (`what` "audit.repair") has `history`: a row for each log that was set aside, oldest first. So the
newest log tells of all of them, for ever. Each lies in `damaged-logs/N/` of the home: `log.db` (its rows as
they were found), `statement.json` (what was agreed to, and by whose signatures), `witnesses/`. A log that
follows another is a log of its own, so its checkpoints have an origin of their own: cloister/SITE.2, then .3.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from appliance.core.db import reading
from appliance.core.errors import LogDamaged
from appliance.core.files import sha256_file
from appliance.core.home import Home
from appliance.security.log import merkle
from appliance.security.log.checkpoint import Checkpoint
from appliance.security.log.walk import Damage

REPAIR = "audit.repair"
_MOST = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Renewal:
    """One log that was set aside. `entries` it had, of which `intact` were as they should be; `checkpoint`
    is the last signed one that it bore out, as size and root ("" where there was none); `evidence` is the
    SHA-256 of its log.db; `people` agreed."""

    number: int
    at: str
    people: tuple[str, ...]
    because: str
    entries: int
    intact: int
    checkpoint_size: int
    checkpoint_root: str
    evidence: str

    @property
    def text(self) -> str:
        """One sentence."""
        last = f"signed at {self.checkpoint_size}" if self.checkpoint_root else "never signed"
        return (
            f"on {self.at[:10]} {' and '.join(self.people)} set a damaged log of {self.entries} entries aside"
            f" (intact up to {self.intact}, {last}) and began it anew: {self.because}"
        )

    def to_json(self) -> dict[str, Any]:
        """As the entry has it."""
        return asdict(self) | {"people": list(self.people)}


def folder_of(home: Home, number: int) -> Path:
    """Where the log that was set aside as the `number`th lies."""
    return home.path / "damaged-logs" / str(number)


def renewals(home: Home, link: sqlite3.Connection | None = None) -> tuple[Renewal, ...]:
    """The logs of this site that were set aside, oldest first; by the folders where the entry is damaged."""
    if link is None:
        if not home.database.exists():
            return ()
        with reading(home) as own:
            return renewals(home, own)
    row = link.execute("SELECT CAST(entry AS BLOB) FROM audit WHERE seq = 1").fetchone()
    try:
        entry = json.loads(row[0]) if row is not None else {}
        if row is not None and entry["what"] != REPAIR:
            return ()
        return tuple(_read(one) for one in entry["history"])
    except (ValueError, KeyError, TypeError):
        return _in_folders(home)


def origin(home: Home, name: str) -> str:
    """The origin of this site's checkpoints now; `name` is that of its keys."""
    return origin_after(name, len(renewals(home)))


def origin_after(name: str, count: int) -> str:
    """The origin of the log that follows `count` others."""
    return f"cloister/{name}.{count + 1}" if count else f"cloister/{name}"


def statement(home: Home) -> str:
    """What every report says of logs that were set aside; "" where none was."""
    found = renewals(home)
    if not found:
        return ""
    times = "once" if len(found) == 1 else f"{len(found)} times"
    return (
        f"the audit log of this site was damaged and begun anew {times}: {'; '.join(r.text for r in found)}"
    )


def check_evidence(home: Home, found: tuple[Renewal, ...]) -> list[Damage]:
    """Whether what was set aside still lies there as it was."""
    wrong = []
    for one in found:
        path = folder_of(home, one.number) / "log.db"
        if not path.is_file():
            text = (
                f"the damaged log that was set aside on {one.at[:10]} is missing: {path.parent.name}/log.db"
            )
        elif sha256_file(path) != one.evidence:
            text = f"the damaged log that was set aside on {one.at[:10]} was changed since"
        else:
            continue
        wrong.append(Damage(kind="evidence", first=0, last=0, text=text))
    return wrong


def compare(home: Home, number: int, point: Checkpoint) -> None:
    """Hold a checkpoint of a log that was set aside against what is kept of that log.

    Raises:
        LogDamaged: its entries are not those that were signed: this is part of what was damaged.
    """
    path = folder_of(home, number) / "log.db"
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as link:
        rows = link.execute(
            "SELECT seq, CAST(entry AS BLOB) FROM audit WHERE seq <= ? ORDER BY seq", (point.size,)
        ).fetchall()
    leaves = [merkle.leaf_hash(entry) for _, entry in rows]
    whole = [seq for seq, _ in rows] == list(range(1, point.size + 1))
    if not whole or merkle.root(len(leaves), merkle.node_of(leaves)) != point.root:
        raise LogDamaged(
            f"This checkpoint of {point.size} entries is of a log that was set aside as damaged, and its"
            " entries are not those that were signed.",
            f"Keep both: the file, and {path.parent} of the home folder. Together they show the damage.",
        )


def _in_folders(home: Home) -> tuple[Renewal, ...]:
    """As the newest folder tells it."""
    found: tuple[Renewal, ...] = ()
    for path in (home.path / "damaged-logs").glob("[0-9]*/history.json"):
        try:
            told = tuple(_read(one) for one in json.loads(path.read_bytes()[:_MOST]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found = max(found, told, key=len)
    return found


def _read(held: Any) -> Renewal:
    told = {one.name: held[one.name] for one in fields(Renewal)}
    for name in ("number", "entries", "intact", "checkpoint_size"):
        told[name] = int(told[name])
    return Renewal(**{**told, "people": tuple(str(name) for name in told["people"])})
