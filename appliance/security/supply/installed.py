"""Whether the installed packages are still what was installed: every file against its package's RECORD.

Everything is hashed each time; sizes, times and inode numbers can be set back, so nothing is remembered.
Found are altered and missing files, and files that no RECORD lists: a `.pth` file or `sitecustomize.py`
runs at every start of Python. Compiled files (.pyc) are run instead of their source, so an installation
whose RECORDs have their hashes (seal.py) is held to them; elsewhere pip writes none, and those whose
header ties them to a source count as unproven. Not seen: Python itself and what lies outside the
environment, which the operating system's package manager checks; and somebody who replaces this check,
against whom only a check from elsewhere helps (against.py).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sysconfig
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from appliance.security.supply.records import STRONG, Package, Row, packages_in

_PIECE = 1 << 20
_BATCH = 64  # files a task: most are small, and a task costs more than a small file
_UNCHECKED = 0b01  # PEP 552: the file is named by a hash that Python does not look at


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One file that is not as it was installed. `what`: altered, missing, added or unrecorded."""

    what: str
    path: str
    package: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a check has found. `size` in bytes; `unproven` counts compiled files without a hash."""

    place: str
    packages: int
    files: int
    size: int
    seconds: float
    findings: tuple[Finding, ...]
    editable: tuple[str, ...]
    unproven: int
    sealed: bool

    @property
    def intact(self) -> bool:
        """Whether every file is as it was installed."""
        return not self.findings


def here() -> Path:
    """The site-packages folder of the running Python."""
    return Path(sysconfig.get_path("purelib"))


def check(place: Path | None = None, packages: Sequence[Package] | None = None) -> Checked:
    """Hash every file of the site-packages folder `place` (else the running Python's) on all cores.

    `packages` replaces what the RECORDs there say.
    """
    began = time.monotonic()
    place = (place or here()).resolve()
    packages = packages_in(place) if packages is None else packages
    sealed = is_sealed(packages)
    claims, findings = _claims(place, packages, sealed)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        paths = sorted(claims)
        batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
        answers = list(pool.map(lambda batch: [_judge(path, claims[path]) for path in batch], batches))
    size = 0
    for found, read in (answer for batch in answers for answer in batch):
        findings += [] if found is None else [_named(found, place)]
        size += read
    known = claims.keys() | _unhashed(place, packages, sealed)
    extra, unproven = _unlisted(place, known, sealed)
    return Checked(
        place=str(place),
        packages=len(packages),
        files=len(claims),
        size=size,
        seconds=time.monotonic() - began,
        findings=tuple(sorted([*findings, *extra], key=lambda one: (one.what, one.path))),
        editable=tuple(package.name for package in packages if package.editable),
        unproven=unproven,
        sealed=sealed,
    )


def is_sealed(packages: Sequence[Package]) -> bool:
    """Whether the RECORDs have the hashes of compiled files, as seal.py writes them."""
    return any(row.compiled and row.digest for package in packages for row in package.rows or ())


Claims = Mapping[str, Sequence[tuple[str, Row]]]


def _claims(place: Path, packages: Sequence[Package], sealed: bool) -> tuple[Claims, list[Finding]]:
    """What is said of each file, by path (two packages may bring the same); and what cannot be checked."""
    claims: dict[str, list[tuple[str, Row]]] = defaultdict(list)
    findings = []
    root = place.parents[2]  # VENV/lib/pythonX.Y/site-packages
    for package in packages:
        if package.rows is None:
            why = "the package has no RECORD that can be read"
            findings.append(_finding("unrecorded", package.folder.name, package.name, why))
        for row in package.rows or ():
            path = os.path.normpath(place / row.path)
            if not path.startswith(f"{root}{os.sep}"):
                findings.append(
                    _finding("unrecorded", row.path, package.name, "lies outside the environment")
                )
            elif row.digest is not None and row.algorithm in STRONG:
                claims[path].append((package.name, row))
            elif not package.may_lack_hash(row) and (sealed or not row.compiled):
                findings.append(_finding("unrecorded", row.path, package.name, "RECORD has no hash of it"))
    return claims, findings


def _unhashed(place: Path, packages: Sequence[Package], sealed: bool) -> set[str]:
    """Files whose RECORD may leave out the hash; compiled ones are judged by their header instead."""
    return {
        os.path.normpath(place / row.path)
        for package in packages
        for row in package.rows or ()
        if row.digest is None and (sealed or not row.compiled)
    }


def _judge(path: str, claims: Sequence[tuple[str, Row]]) -> tuple[Finding | None, int]:
    """What is wrong with one file, and how many bytes were read. One right claim is enough."""
    package = claims[0][0]
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return _finding("missing", path, package, "the file is gone"), 0
    except OSError as problem:
        return _finding("altered", path, package, f"cannot be read: {problem.strerror}"), 0
    with os.fdopen(handle, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return _finding("altered", path, package, "is no plain file"), 0
        sums = {row.algorithm: hashlib.new(row.algorithm) for _, row in claims}
        read = 0
        piece = memoryview(bytearray(min(_PIECE, max(os.fstat(handle).st_size, 1))))
        while count := stream.readinto(piece):
            read += count
            for digest in sums.values():
                digest.update(piece[:count])
    if any(sums[row.algorithm].digest() == row.digest for _, row in claims):
        return None, read
    return _finding("altered", path, package, "its content is not what was installed"), read


def _unlisted(place: Path, known: set[str], sealed: bool) -> tuple[list[Finding], int]:
    """Files that no RECORD has, and how many compiled files are proven by nothing but their header."""
    findings, unproven = [], 0
    for path in _files(str(place)):
        if path in known:
            continue
        why = "no RECORD lists it"
        if not sealed and path.endswith(".pyc") and not Path(path).is_symlink():
            wrong = _compiled(path, known)
            if wrong is None:
                unproven += 1
                continue
            why = wrong
        findings.append(_named(_finding("added", path, "", why), place))
    return findings, unproven


def _files(folder: str) -> Iterator[str]:
    """Everything below `folder` that is no folder, and folders that cannot be read; no link is followed."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        yield folder
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)
        else:
            yield entry.path


def _compiled(path: str, known: set[str]) -> str | None:
    """What is wrong with a compiled file that has no hash; None: it belongs to a listed source."""
    file = Path(path)
    if file.parent.name != "__pycache__":
        return "a compiled file outside __pycache__ is run without a source"
    source = re.sub(r"\.[^.]+(\.opt-[^.]+)?\.pyc\Z", ".py", file.name)  # its own name may have dots
    if str(file.parent.parent / source) not in known:
        return "a compiled file without a listed source"
    with file.open("rb") as stream:
        header = stream.read(8)
    if len(header) == 8 and header[4] & 0b11 == _UNCHECKED:
        return "a compiled file that Python runs without a look at its source"
    return None


def _finding(what: str, path: str, package: str, why: str) -> Finding:
    return Finding(what=what, path=path, package=package, why=why)


def _named(finding: Finding, place: Path) -> Finding:
    """The same with the path as a RECORD has it."""
    path = os.path.relpath(finding.path, place)
    return Finding(what=finding.what, path=path, package=finding.package, why=finding.why)
