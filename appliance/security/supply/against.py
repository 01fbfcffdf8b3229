"""An installation held against the wheelhouse it came from, by a Python and code of another place.

The check that an installation makes of itself is as good as the installation: somebody who may write there
may replace the check. This one runs from the wheelhouse: `sh install.sh DIR --check`. What the wheels
brought must be there byte for byte. What the installer made beside it (compiled files, its own notes, the
commands in bin) is held to the installation's own RECORDs, which is weaker: install again to be sure of it.
"""

from __future__ import annotations

import dataclasses
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from appliance.security.supply.installed import Checked, Finding, check
from appliance.security.supply.records import Package, Row, normal, packages_in, read_rows

_MADE = re.compile(
    r"[^/]+\.dist-info/(INSTALLER|REQUESTED|RECORD|direct_url\.json)"
    r"|(\.\./){3}bin/[^/]+|([^.][^/]*/)*__pycache__/[^/]+\.pyc"
)
_MOVED = re.compile(r"[^/]+\.data/(purelib|platlib|data)/(.+)")


def compare(wheels: Sequence[Path], place: Path, left_out: Sequence[str] = ()) -> Checked:
    """Check the site-packages folder `place` against `wheels`; files that fit `left_out` may be missing.

    Raises:
        ValueError, OSError, zipfile.BadZipFile: one of `wheels` is no wheel.
    """
    brought = dict(_brought(wheel) for wheel in wheels)
    absent = [re.compile(_as_regex(pattern)) for pattern in left_out]
    packages, more = [], []
    for package in packages_in(place):
        rows = brought.pop(normal(package.name), None)
        if rows is None:
            packages.append(dataclasses.replace(package, rows=()))
            why = "the wheelhouse has no such package"
            more.append(Finding(what="added", path=package.folder.name, package=package.name, why=why))
        else:
            packages.append(dataclasses.replace(package, rows=_merged(rows, package)))
    for name in brought:
        why = "the wheelhouse has this package"
        more.append(Finding(what="missing", path=name, package=name, why=why))
    checked = check(place, packages)
    findings = [
        one
        for one in checked.findings
        if one.what != "missing" or not any(pattern.fullmatch(one.path) for pattern in absent)
    ]
    return dataclasses.replace(checked, findings=(*findings, *more))


def _brought(wheel: Path) -> tuple[str, tuple[Row, ...]]:
    """Name of a wheel's package, and the rows of its RECORD with the paths they are installed under."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/RECORD", name)]
        if len(names) != 1:
            raise ValueError(f"{wheel.name} has not one RECORD")
        rows = []
        for row in read_rows(archive.read(names[0]).decode()):
            moved = _MOVED.fullmatch(row.path)
            if moved:
                up = "../../../" if moved[1] == "data" else ""
                rows.append(dataclasses.replace(row, path=up + moved[2]))
            elif ".data/" not in row.path.partition("/")[0] + "/":
                rows.append(row)
    return normal(names[0].partition("-")[0]), tuple(rows)


def _merged(brought: tuple[Row, ...], package: Package) -> tuple[Row, ...]:
    """What the wheel says, and of the installation's own RECORD only what an installer makes."""
    known = {row.path for row in brought}
    return (
        *brought,
        *(row for row in package.rows or () if row.path not in known and _MADE.fullmatch(row.path)),
    )


def _as_regex(pattern: str) -> str:
    """A pattern of Path.glob, for the path of a file: the match itself, or anything below it."""
    parts = [re.escape(part).replace(r"\*", "[^/]*") for part in pattern.split("**/")]
    return "(.*/)?".join(parts) + "(/.*)?"
