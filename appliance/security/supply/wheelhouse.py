"""A wheelhouse: a folder with every package a profile needs, installed from without a network.

    wheels/*.whl        the packages            requirements.lock   name==version --hash=sha256:...
    SBOM.cdx.json       what they are           wheelhouse.json     the machine they are for
    install.sh *.py     the installer           SHA256SUMS          every file above, as sha256sum writes it

It travels as a bundle of the kind `wheelhouse`: `files` lists what goes in, `settle` takes what arrived.
Names in a bundle are plainer than those of wheels, so a `+` travels as `_plus_`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from appliance.core.errors import DataRejected
from appliance.core.files import sha256_file

KIND = "wheelhouse"
SUMS, LOCK, SBOM, FACTS = "SHA256SUMS", "requirements.lock", "SBOM.cdx.json", "wheelhouse.json"
_SUM = re.compile(r"([0-9a-f]{64})  ((?:wheels/)?[A-Za-z0-9][A-Za-z0-9._+!-]{0,199})")
_LOCKED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*==[^ \\]+) --hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file of a wheelhouse: `name` in a bundle, `path` on the disk, `size` in bytes, `sha256` in hex."""

    name: str
    path: Path
    size: int
    sha256: str


def files(folder: Path) -> list[Item]:
    """Every file of the wheelhouse in `folder`, hashed now, SHA256SUMS first.

    Raises:
        DataRejected: it is no wheelhouse, or a file is missing, altered, or none of its own.
    """
    expected = _sums(folder)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    for name in sorted(found - expected.keys() - {SUMS}):
        raise _wrong(f"{name} is not part of the wheelhouse: {SUMS} does not list it.")
    listed = []
    for name, sha256 in [(SUMS, None), *expected.items()]:
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise _wrong(f"{name} is missing from the wheelhouse.")
        held = sha256_file(path)
        if held != (sha256 or held):
            raise _wrong(f"{name} is not the file that the wheelhouse was made with.")
        listed.append(Item(name=safe(name), path=path, size=path.stat().st_size, sha256=held))
    if len({item.name.casefold() for item in listed}) != len(listed):
        raise _wrong("Two files of the wheelhouse would have one name in a bundle.")
    locked = {sha256: name for name, sha256 in locked_wheels(folder)}
    for sha256, name in locked.items():
        if sha256 not in expected.values():
            raise _wrong(f"The wheel of {name} is missing from the wheelhouse.")
    for name, sha256 in expected.items():
        if name.startswith("wheels/") and sha256 not in locked:
            raise _wrong(f"{name} is not part of the wheelhouse: {LOCK} does not list it.")
    return listed


def settle(folder: Path) -> list[Item]:
    """Make what came out of a bundle a wheelhouse again, with its wheels' own names, and check it all.

    Raises:
        DataRejected: as `files`.
    """
    for name in _sums(folder):
        if name != safe(name) and (folder / safe(name)).is_file():
            (folder / safe(name)).rename(folder / name)
    return files(folder)


def locked_wheels(folder: Path) -> list[tuple[str, str]]:
    """(name==version, SHA-256) of each line of the lock.

    Raises:
        DataRejected: there is none, or a line is another.
    """
    return list(read_lock(_text(folder / LOCK)))


def read_lock(text: str) -> Iterator[tuple[str, str]]:
    """As `locked_wheels`, of the lock's text."""
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            found = _LOCKED.fullmatch(line.strip())
            if found is None:
                raise _wrong(f"{LOCK} has a line that is no version with its hash.")
            yield found[1], found[2]


def safe(name: str) -> str:
    """`name` as a bundle takes it: letters, digits, dot, dash and underscore."""
    return "/".join(part.replace("+", "_plus_").replace("!", "_epoch_") for part in PurePosixPath(name).parts)


def _sums(folder: Path) -> dict[str, str]:
    expected: dict[str, str] = {}
    for line in _text(folder / SUMS).splitlines():
        found = _SUM.fullmatch(line)
        if found is None or found[2] in expected:
            raise _wrong(f"{SUMS} has a line that is no checksum of a file.")
        expected[found[2]] = found[1]
    if not {LOCK, SBOM, FACTS} <= expected.keys():
        raise _wrong(f"{folder} is no wheelhouse: {SUMS} does not list {LOCK}, {SBOM} and {FACTS}.")
    return expected


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        raise _wrong(f"{path.parent} is no wheelhouse: {path.name} cannot be read.") from None


def _wrong(message: str) -> DataRejected:
    return DataRejected(message, "Take the wheelhouse anew from where it was made: make wheelhouse")
