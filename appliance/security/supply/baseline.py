"""The first look at an installation, kept so that altering a file and its RECORD together is found.

Kept is a list: each package's RECORD by hash, and what surrounds the packages (the environment's own
settings, its Python). The list lies in the home folder; its hash is an entry of the audit log, which is
what counts: the log is signed and witnessed by others, the list only names what changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from appliance.core.db import reading, transaction
from appliance.core.errors import InstallationAltered
from appliance.core.files import sha256_file, write_bytes
from appliance.core.home import Home
from appliance.security import audit, canonical
from appliance.security.people import guard
from appliance.security.supply.installed import Checked, Finding, check, here, is_sealed
from appliance.security.supply.records import OWN, Package, changed, digests, packages_in

RECORDED, CHANGED = "supply.record", "supply.changed"
_NAMED = 20
_FILE = "installed.json"

Keep = Callable[[sqlite3.Connection, str, str], None]


def now_installed(place: Path, packages: Sequence[Package] | None = None) -> dict[str, str]:
    """What is installed at `place`: hash of each RECORD by its folder's name, and of what surrounds them."""
    root = place.parents[2]
    settings = root / "pyvenv.cfg"
    around = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "pyvenv.cfg": sha256_file(settings) if settings.is_file() else "",
        "bin/python": os.path.realpath(root / "bin" / "python"),
    }
    return digests(packages_in(place) if packages is None else packages) | around


def digest_of(listed: dict[str, str]) -> str:
    """SHA-256 of the canonical list, in hex."""
    return hashlib.sha256(canonical.encode(listed)).hexdigest()


def record(home: Home, *, who: str, place: Path | None = None, keep: Keep | None = None) -> str:
    """Check what is installed and keep it as the state that later checks compare with; returns the digest.

    `keep(link, place, digest)` may store the digest elsewhere too, inside the same transaction.

    Raises:
        InstallationAltered: a file is not what its package brought; nothing is recorded.
        NotAllowed: `who` may not say what is right.
    """
    place = (place or here()).resolve()
    refuse(check(place))
    listed = now_installed(place)
    digest = digest_of(listed)
    with transaction(home) as link:
        guard.spend(link, home, who, RECORDED, str(place))
        audit.record(
            link, who=who, what=RECORDED, target=str(place), digest=digest, packages=len(packages_in(place))
        )
        if keep is not None:
            keep(link, str(place), digest)
        write_bytes(home.path / _FILE, canonical.encode({"place": str(place), "listed": listed}))
    return digest


def recorded(home: Home, place: Path) -> str | None:
    """The digest kept last for `place`; None: none was."""
    with reading(home) as link:
        rows = link.execute(
            "SELECT entry FROM audit WHERE instr(entry, ?) ORDER BY seq DESC", (f'"what":"{RECORDED}"',)
        )
        for row in rows:
            entry: dict[str, Any] = json.loads(row["entry"])
            if entry["what"] == RECORDED and entry["target"] == str(place):
                return str(entry["digest"])
    return None


def compare(home: Home, place: Path | None = None, *, kept: str | None = None) -> tuple[str, list[Finding]]:
    """How the installation differs from what was recorded: ("same", "changed" or "none", what differs).

    `kept` is the digest to compare with; else the one in the audit log.
    """
    place = (place or here()).resolve()
    kept = kept or recorded(home, place)
    if kept is None:
        return "none", []
    listed = now_installed(place)
    if digest_of(listed) == kept:
        return "same", []
    before = _listed(home, kept)
    if before is None:
        why = "what is installed is not what was recorded, and the list that would name it was altered too"
        return "changed", [Finding(what="altered", path=_FILE, package="", why=why)]
    return "changed", [
        Finding(
            what=what,
            path=f"{name}/RECORD" if name.endswith(".dist-info") else name,
            package=name.partition("-")[0] if name.endswith(".dist-info") else "",
            why="not as it was recorded",
        )
        for what, name in changed(before, listed)
    ]


def record_first(home: Home, *, who: str) -> str | None:
    """As `record` for a new site; None where it is done, or where Cloister runs from a source folder.

    Raises:
        InstallationAltered: as `record`.
    """
    place = here().resolve()
    if not _own(place) or recorded(home, place) is not None:
        return None
    return record(home, who=who)


def check_lists(home: Home, *, who: str) -> None:
    """Hold the packages' own lists to what was recorded; reads no other file, so before any long work.

    Raises:
        InstallationAltered: they differ; the audit log keeps it.
    """
    place = here().resolve()
    _, findings = compare(home, place)
    if findings:
        with transaction(home) as link:
            note(link, who=who, place=str(place), findings=findings)
    _refuse(findings)


def check_at_start(home: Home, *, who: str) -> Checked | None:
    """Check before serving, where there is something to hold an installation to; None: a source folder.

    Raises:
        InstallationAltered: a file is not as it was installed; the audit log keeps it.
    """
    place = here().resolve()
    if not is_sealed(_own(place)) and recorded(home, place) is None:
        return None
    checked = check(place)
    _, more = compare(home, place)
    if findings := [*checked.findings, *more]:
        with transaction(home) as link:
            note(link, who=who, place=str(place), findings=findings)
    refuse(checked, more)
    return checked


def note(link: sqlite3.Connection, *, who: str, place: str, findings: Sequence[Finding]) -> None:
    """The audit line of an installation that was changed: how many files, and the first of them by name."""
    named = [f"{one.what} {one.path}" for one in findings[:_NAMED]]
    audit.record(link, who=who, what=CHANGED, target=place, count=len(findings), first=named)


def refuse(checked: Checked, more: Sequence[Finding] = ()) -> None:
    """Pass an intact installation.

    Raises:
        InstallationAltered: it is not; the first finding is named.
    """
    _refuse([*checked.findings, *more])


def _refuse(findings: Sequence[Finding]) -> None:
    if findings:
        first, rest = findings[0], len(findings) - 1
        raise InstallationAltered(
            f"The installation was changed: {first.path} is {first.what}"
            + (f", and {rest} more." if rest else "."),
            "See all: cloister supply check. Then install again from the wheelhouse.",
        )


def _own(place: Path) -> list[Package]:
    return [package for package in packages_in(place, f"{OWN}-*") if not package.editable]


def _listed(home: Home, digest: str) -> dict[str, str] | None:
    """The list kept in the home folder, if it is the one with `digest`."""
    try:
        told = canonical.decode((home.path / _FILE).read_bytes())
        listed: dict[str, str] = told["listed"]
        return listed if digest_of(listed) == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
