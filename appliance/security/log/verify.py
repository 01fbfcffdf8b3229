"""Whether the audit log is whole, and borne out by every checkpoint that is kept of it.

What it cannot know, and says: entries after the newest witness may have been cut off, or the whole
folder replaced by an older copy. Only a checkpoint that is held elsewhere and brought back tells.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from appliance.core.db import reading
from appliance.core.errors import DataRejected, LogDamaged
from appliance.core.home import Home
from appliance.security.log import tree, witness
from appliance.security.log.checkpoint import Checkpoint, Verifier, read
from appliance.security.log.renewed import REPAIR, Renewal, check_evidence, renewals
from appliance.security.log.request_rows import check_requests
from appliance.security.log.walk import Damage, Walked, walk
from appliance.security.people import persons, signing
from appliance.security.people.roster import enough

LIMIT = (
    "Entries after the newest witness could be cut off, or the whole site folder replaced by an older copy,"
    " without a trace here: bring in a checkpoint that is kept elsewhere (cloister audit witness FILE)."
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found. `intact`: entries up to this one are as they were; `witnessed`: of them, so many
    are borne out from outside, `signed` by the site's own checkpoints (None: by none)."""

    size: int
    root: bytes
    intact: int
    witnessed: int | None
    signed: int | None
    damages: tuple[Damage, ...]
    renewals: tuple[Renewal, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damages

    @property
    def text(self) -> str:
        """One sentence."""
        by = "witnessed by nobody yet" if self.witnessed is None else f"witnessed at {self.witnessed}"
        before = "".join(f"; before it, {one.text}" for one in self.renewals)
        return f"intact up to entry {self.intact}, {by}{before}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "ok": self.ok,
            "entries": self.size,
            "root": self.root.hex(),
            "intact": self.intact,
            "witnessed": self.witnessed,
            "signed": self.signed,
            "text": self.text,
            "damages": [vars(damage) for damage in self.damages],
            "renewals": [one.to_json() for one in self.renewals],
            "limit": LIMIT,
        }

    def error(self) -> LogDamaged:
        """The first damage as an error."""
        more = f" ({len(self.damages) - 1} more)" if len(self.damages) > 1 else ""
        return LogDamaged(
            f"The audit log is damaged: {self.damages[0].text}{more}.",
            "Keep this folder as it is, and compare it with a backup and the checkpoints held elsewhere."
            " Where nothing helps, two people set it aside: cloister audit repair",
        )


def verify(home: Home, keys: Sequence[Verifier], *, requests: bool = True) -> Verdict:
    """Hash the whole log anew and hold it against everything that is kept of it.

    `keys`: the site's own, of all its epochs. `requests`: check the rows of the request log, too.
    """
    with reading(home) as link:
        link.execute("BEGIN")  # one state, whatever is appended meanwhile
        found: list[Damage] = []
        size, older = _head(link, found)
        checkpoints = _checkpoints(link, home, keys, found)
        walked = walk(link, [point.size for point, _ in checkpoints], in_tree=size >= older and not found)
        found[:0] = walked.damages
        _check_end(link, walked, size if size >= older else older, found)
        if requests and not walked.stopped:
            found += check_requests(link)
        good = _check_checkpoints(walked, checkpoints, found)
        before = renewals(home, link)
        found += check_evidence(home, before)
        if before and not _signed_for(home, link):
            text = "the log before was set aside without the signatures of two people of this site"
            found.append(Damage(kind="unsigned", first=0, last=0, text=text))
        intact = min([walked.size, *(d.first - 1 for d in found if d.first and d.kind != "request")])
        return Verdict(
            size=walked.size,
            root=walked.roots[walked.size],
            intact=max(intact, 0),
            witnessed=max((p.size for p, kept in good if kept.outside and p.size <= intact), default=None),
            signed=max((p.size for p, _ in good if p.size <= intact), default=None),
            damages=tuple(found),
            renewals=before,
        )


def _signed_for(home: Home, link: sqlite3.Connection) -> bool:
    """Whether two people, of whenever, signed what the first entry says; always where one person rules."""
    rosters = persons.history(home, link)
    if not rosters:
        return True
    try:
        row = link.execute("SELECT entry FROM audit WHERE seq = 1").fetchone()
        entry = json.loads(row["entry"])
        signatures = dict(entry["signatures"])
        if not signatures:  # as one person may, before there were people
            asked, founded = entry["statement"]["asked"], rosters[-1].people[0].since
            return datetime.fromisoformat(asked) < datetime.fromisoformat(founded)
        for roster in rosters:
            people = [roster.find(name) for name in signatures]
            who = [
                one
                for one in people
                if one and signing.holds(one.public, REPAIR, entry["statement"], str(signatures[one.name]))
            ]
            if enough(REPAIR, who):
                return True
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return False


def _head(link: sqlite3.Connection, found: list[Damage]) -> tuple[int, int]:
    try:
        return tree.head(link)
    except LogDamaged:
        found.append(Damage(kind="tree", first=0, last=0, text="the size of the tree is gone"))
        return 0, 0


def _checkpoints(
    link: sqlite3.Connection, home: Home, keys: Sequence[Verifier], found: list[Damage]
) -> list[tuple[Checkpoint, witness.Kept]]:
    """All kept checkpoints whose signature holds, by size."""
    origins = {key.name for key in keys}
    kept: dict[bytes, witness.Kept] = {}
    for origin in origins or {""}:
        try:
            kept |= {one.note + bytes([one.outside]): one for one in witness.stored(link, home, origin)}
        except DataRejected as problem:
            found.append(Damage(kind="signature", first=0, last=0, text=problem.message.rstrip(".")))
    good = []
    for one in kept.values():
        try:
            point = read(one.note, keys)
        except DataRejected as problem:
            text = f"{one.source}: {problem.message.rstrip('.')}"
            found.append(Damage(kind="signature", first=0, last=0, text=text))
            continue
        good.append((point, one))
        if not one.in_database:
            text = (
                f"the database does not know the witness of {point.size} entries ({one.source}): it was"
                " replaced by an older copy"
            )
            found.append(Damage(kind="rolled back", first=0, last=0, text=text))
    return sorted(good, key=lambda pair: pair[0].size)


def _check_end(link: sqlite3.Connection, walked: Walked, size: int, found: list[Damage]) -> None:
    """What is remembered of how long the log was: the tree, its size, and SQLite's own count."""
    if walked.stopped:
        return
    level, known = 0, [size]
    while True:
        row = link.execute("SELECT MAX(place) FROM audit_tree WHERE level = ?", (level,)).fetchone()
        if row[0] is None:
            break
        known.append((row[0] + 1) << level)
        level += 1
    row = link.execute("SELECT seq FROM sqlite_sequence WHERE name = 'audit'").fetchone()
    known.append(row[0] if row is not None else 0)
    longest = max(known)
    if longest > walked.size:
        text = f"entries {walked.size + 1} to {longest} are missing: the log was cut off"
        found.append(Damage(kind="truncated", first=walked.size + 1, last=longest, text=text))
    elif min(size, known[-1]) < walked.size:
        text = f"the log has {walked.size} entries, its own count says {min(size, known[-1])}"
        found.append(Damage(kind="tree", first=0, last=0, text=text))


def _check_checkpoints(
    walked: Walked, checkpoints: Sequence[tuple[Checkpoint, witness.Kept]], found: list[Damage]
) -> list[tuple[Checkpoint, witness.Kept]]:
    """Those that the log extends. Of the others it is said between which entries the difference lies."""
    good: list[tuple[Checkpoint, witness.Kept]] = []
    roots: dict[int, bytes] = {}
    broken = min((d.first for d in found if d.first and d.kind != "request"), default=walked.size + 1)
    for point, kept in checkpoints:
        said = f"{kept.source} of {point.size} entries, {point.time:%Y-%m-%d %H:%M} UTC"
        if roots.setdefault(point.size, point.root) != point.root:
            text = f"the site has signed two different logs of {point.size} entries"
            found.append(Damage(kind="forked", first=0, last=0, text=text))
        if point.size > walked.size and not walked.stopped:
            text = (
                f"the log has {walked.size} entries, fewer than {said}: it was cut off, or the database"
                " replaced by an older copy"
            )
            kind = "truncated" if any(d.kind == "truncated" for d in found) else "rolled back"
            found.append(Damage(kind=kind, first=walked.size + 1, last=point.size, text=text))
        elif point.size < broken and walked.roots[point.size] != point.root:
            begin = max((one.size for one, _ in good), default=0) + 1
            text = f"entries {begin} to {point.size} hold something else than {said}: history was rewritten"
            found.append(Damage(kind="rewritten", first=begin, last=point.size, text=text))
        elif point.size < broken:
            good.append((point, kept))
    return good
