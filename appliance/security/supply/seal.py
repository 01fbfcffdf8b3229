"""Puts the hashes of compiled files into the RECORDs: `python -I -B -m appliance.security.supply.seal`.

Run by the installer, right after it installed from hashed wheels and compiled. From then on a compiled
file is held to its hash as any other, and one that comes later counts as added; so a sealed installation
writes none (`MARK`, which the launcher looks for). What the edge profile left out leaves the RECORDs.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from appliance.core.errors import ApplianceError, InstallationAltered
from appliance.core.files import write_bytes
from appliance.security.supply.installed import check, here
from appliance.security.supply.records import Package, Row, packages_in, write_rows

MARK = ".sealed"


def seal(place: Path) -> int:
    """Seal the packages of the site-packages folder `place`; returns how many compiled files have a hash.

    Raises:
        InstallationAltered: a file is not what its package brought; missing ones are taken as left out.
    """
    packages = packages_in(place)
    wrong = [one for one in check(place, packages).findings if one.what != "missing"]
    wrong = [
        one for one in wrong if not one.path.endswith(".pyc")
    ]  # a seal is renewed: they were compiled anew
    if wrong:
        raise InstallationAltered(f"{wrong[0].path}: {wrong[0].why}.", "Install again, into an empty folder.")
    compiled = 0
    for package in packages:
        rows = list(_rows(place, package))
        compiled += sum(row.compiled for row in rows)
        write_bytes(package.folder / "RECORD", write_rows(rows).encode())
    (place.parents[2] / MARK).touch()
    return compiled


def _rows(place: Path, package: Package) -> Iterable[Row]:
    for row in package.rows or ():
        if row.compiled:
            continue
        if (place / row.path).exists():
            yield row
            yield from _compiled(place, row.path)


def _compiled(place: Path, source: str) -> Iterable[Row]:
    """The rows of what Python compiled from `source`."""
    if not source.endswith(".py"):
        return
    file = place / source
    for found in sorted(
        (file.parent / "__pycache__").glob(f"{file.stem}.{sys.implementation.cache_tag}*.pyc")
    ):
        content = found.read_bytes()
        path = f"{source.rpartition('/')[0]}/__pycache__/{found.name}".lstrip("/")
        yield Row(path=path, digest=hashlib.sha256(content).digest(), size=len(content))


if __name__ == "__main__":
    try:
        seal(here())
    except ApplianceError as problem:
        sys.exit(f"{problem.message} {problem.hint}")
