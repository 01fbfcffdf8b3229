"""Whether a site has people who check each other, or one person who may do everything.

`home/people.json` says it: {v, mode, site, founding, latest, vault}. It ties the signed list of people in the
database to something outside of it: `founding` is the digest of the first list, `latest` the version below
which the list must not fall, so that a list cannot be exchanged or rolled back in the database alone.
`vault` is the id of the vault that seals the home, or "" (core/vaulted.py holds vault.json against it).
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import nullcontext
from dataclasses import asdict, dataclass

from appliance.core.db import reading
from appliance.core.errors import ApplianceError
from appliance.core.files import write_json
from appliance.core.home import Home
from appliance.security.log import renewed

SINGLE, PEOPLE = "single-person", "people"

_ONE = (
    "single-person mode: no second person approved what was trained, exported or set at this site; one person"
    " could do everything"
)
_SEVERAL = (
    "people with roles: exports, raised budgets, training without privacy and changes of people and trust"
    " needed the signatures of two people, one of them a privacy officer"
)


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """What stands in people.json."""

    mode: str
    site: str
    founding: str = ""
    latest: int = 0
    vault: str = ""


def anchor(home: Home, link: sqlite3.Connection | None = None) -> Anchor | None:
    """What the site was initialised as, or None if it never was; `link` is the caller's connection.

    Raises:
        ApplianceError: the file is damaged, or is gone or speaks of one person while the database has people.
    """
    try:
        held = json.loads(home.people.read_bytes())
        found = Anchor(**{key: value for key, value in held.items() if key != "v"})
        if held["v"] != 1 or found.mode not in (SINGLE, PEOPLE):
            raise ValueError
    except FileNotFoundError:
        if home.database.exists() and _has_people(home, link):
            raise _damaged("is missing") from None
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise _damaged("is damaged") from None
    if found.mode == SINGLE and home.database.exists() and _has_people(home, link):
        raise _damaged("speaks of one person, and its database of several")
    return found


def write_anchor(home: Home, found: Anchor) -> None:
    """Replace people.json."""
    write_json(home.people, {"v": 1, **asdict(found)})


def mode(home: Home, link: sqlite3.Connection | None = None) -> str:
    """SINGLE or PEOPLE; a site that was never initialised has one person. `link`: the caller's connection."""
    found = anchor(home, link)
    return SINGLE if found is None else found.mode


def statement(home: Home) -> str:
    """The sentence on who checks whom here that every report, card and evidence carries.

    It also tells, for ever, of an audit log that was damaged and begun anew.
    """
    told = [_ONE if mode(home) == SINGLE else _SEVERAL, renewed.statement(home)]
    return "; ".join(filter(None, told))


def _has_people(home: Home, link: sqlite3.Connection | None) -> bool:
    # On a full disk whoever reads has the database alone, also against itself.
    with reading(home) if link is None else nullcontext(link) as held:
        return bool(held.execute("SELECT COUNT(*) FROM rosters").fetchone()[0])


def _damaged(how: str) -> ApplianceError:
    return ApplianceError(
        f"The file people.json of this site {how}, so nobody's rights can be known.",
        "Restore it from the backup of the home folder.",
    )
