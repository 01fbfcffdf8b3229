"""What installed packages say of their own files: RECORD, the list that pip writes beside each.

Format: CSV rows `path,algorithm=digest,size`, the digest in URL-safe base64 without padding; see
packaging.python.org, "Recording installed projects". Standard library only: the installer uses it too.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

OWN = "cloister"
STRONG = ("sha256", "sha384", "sha512")
_SIGNATURES = ("RECORD", "RECORD.jws", "RECORD.p7s")  # what a RECORD cannot hold the hash of


@dataclass(frozen=True, kw_only=True)
class Row:
    """One file of a package. `digest` is None where none is given; `size` is in bytes."""

    path: str
    algorithm: str = "sha256"
    digest: bytes | None = None
    size: int | None = None

    @property
    def compiled(self) -> bool:
        """Whether Python made it from another file; pip lists these without a hash."""
        return self.path.endswith(".pyc")


@dataclass(frozen=True, kw_only=True)
class Package:
    """One installed distribution. `rows` is None where there is no RECORD that can be read."""

    name: str
    version: str
    folder: Path
    rows: tuple[Row, ...] | None
    editable: bool = False
    digest: str = ""  # SHA-256 of RECORD, in hex

    def may_lack_hash(self, row: Row) -> bool:
        """Whether `row` is the RECORD itself or a signature of it."""
        return row.path in {f"{self.folder.name}/{name}" for name in _SIGNATURES}


def read_rows(text: str) -> tuple[Row, ...]:
    """The rows of a RECORD.

    Raises:
        ValueError: it is not one.
    """
    found = []
    for fields in csv.reader(io.StringIO(text, newline=""), strict=True):
        if len(fields) != 3 or not fields[0]:
            raise ValueError("a row has not three fields")
        algorithm, _, digest = fields[1].partition("=")
        found.append(
            Row(
                path=fields[0],
                algorithm=algorithm or "sha256",
                digest=_decoded(digest) if digest else None,
                size=int(fields[2]) if fields[2] else None,
            )
        )
    return tuple(found)


def write_rows(rows: Iterable[Row]) -> str:
    """The text of a RECORD."""
    text = io.StringIO(newline="")
    out = csv.writer(text, lineterminator="\n")
    for row in rows:
        hashed = "" if row.digest is None else f"{row.algorithm}={_encoded(row.digest)}"
        out.writerow((row.path, hashed, "" if row.size is None else row.size))
    return text.getvalue()


def packages_in(place: Path, pattern: str = "*") -> list[Package]:
    """Every distribution of the site-packages folder `place` (whose folder fits `pattern`), by name."""
    folders = list(place.glob(pattern))
    found = [_package(folder) for folder in folders if folder.name.endswith(".dist-info")]
    found += [
        Package(name=old.name.partition("-")[0], version="", folder=old, rows=None)
        for old in folders
        if old.name.endswith((".egg-info", ".egg"))
    ]
    return sorted(found, key=lambda package: (normal(package.name), package.folder.name))


def digests(packages: Iterable[Package]) -> dict[str, str]:
    """The digest of each package's RECORD, by the name of its folder."""
    return {package.folder.name: package.digest for package in packages}


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[tuple[str, str]]:
    """What differs between two `digests`: (added, altered or missing; name), by name."""
    told = []
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            what = "added" if name not in before else "missing" if name not in after else "altered"
            told.append((what, name))
    return told


def normal(name: str) -> str:
    """A project's name as the index compares it: small letters, and dashes for dots and underscores."""
    return "-".join(part for part in name.lower().replace("_", "-").replace(".", "-").split("-") if part)


def _package(folder: Path) -> Package:
    name, _, version = folder.name.removesuffix(".dist-info").partition("-")
    try:
        content = (folder / "RECORD").read_bytes()
        rows: tuple[Row, ...] | None = read_rows(content.decode())
    except (OSError, ValueError, csv.Error):
        content, rows = b"", None
    return Package(
        name=name,
        version=version,
        folder=folder,
        rows=rows,
        editable=_is_editable(folder / "direct_url.json"),
        digest=hashlib.sha256(content).hexdigest(),
    )


def _is_editable(file: Path) -> bool:
    try:
        told = json.loads(file.read_bytes())
        return bool(told.get("dir_info", {}).get("editable"))
    except (OSError, ValueError, AttributeError):
        return False


def _decoded(digest: str) -> bytes:
    return base64.b64decode(digest + "=" * (-len(digest) % 4), altchars=b"-_", validate=True)


def _encoded(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
