"""What the audit log says of trust, so that rows changed by hand give none back: keys that ended, the version
of the root document, and the numbers of bundles that came in.

After the log was begun anew it says less: keys that had ended are entered again (log/renewal.py).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Logged:
    """`ended`: keys revoked, or followed by a newer one of their name. `root`: the version of the document
    taken last, 0 if none was. `floors`: as of trust.Trust."""

    ended: frozenset[str]
    root: int
    floors: Mapping[tuple[str, int, str], int]


def logged(link: sqlite3.Connection) -> Logged:
    """Read the whole log for it, inside the caller's connection; entries that are damaged say nothing."""
    names: dict[str, str] = {}
    ended, root, floors = set[str](), 0, dict[tuple[str, int, str], int]()
    rows = link.execute(
        "SELECT entry FROM audit WHERE instr(entry, ?) OR instr(entry, ?) ORDER BY seq",
        ('"what":"trust.', '"what":"bundle.import"'),
    )
    for row in rows:
        with suppress(ValueError, KeyError, TypeError):
            entry: dict[str, Any] = json.loads(row["entry"])
            what = entry["what"]
            if what == "trust.add":
                before = names.get(entry["target"], entry["key"])
                ended |= {before} - {entry["key"]}
                names[entry["target"]] = entry["key"]
            elif what == "trust.revoke":
                ended.add(entry["key"])
            elif what == "trust.root":
                root = int(entry["target"].removeprefix("version "))
            elif what == "bundle.import":
                place = (entry["signer"], int(entry["key_epoch"]), entry["line"])
                floors[place] = max(floors.get(place, 0), int(entry["seq"]))
    return Logged(ended=frozenset(ended), root=root, floors=floors)
