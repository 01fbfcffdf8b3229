"""Which names files may have in a bundle, on every system alike. Pure: names in, a refusal out."""

from __future__ import annotations

import re
from collections.abc import Iterable

from appliance.security.bundle.format import OF_WHEELHOUSE, PLAIN_NAMES, SUFFIXES
from appliance.security.bundle.refusals import refused

_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_DEEPEST = 4


def check_names(kind: str, names: Iterable[str]) -> None:
    """Check all names of one bundle: 1 to 4 segments of 1 to 100 characters `A-Z a-z 0-9 . _ -`, no
    leading dot, a suffix that the kind may carry, and no two that are one file or a file and a folder on
    some system.

    Raises:
        BundleRefused: `unsafe-name` or `wrong-file`.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for name in names:
        segments = name.split("/")
        if len(segments) > _DEEPEST or not all(_SEGMENT.fullmatch(segment) for segment in segments):
            raise refused("unsafe-name")
        if not _carried(kind, segments[-1]):
            raise refused("wrong-file", path=name)
        folded = name.casefold()
        above = {"/".join(segments[:depth]).casefold() for depth in range(1, len(segments))}
        if folded in files or folded in folders or above & files:
            raise refused("unsafe-name")
        files.add(folded)
        folders |= above


def _carried(kind: str, last: str) -> bool:
    if kind == "wheelhouse" and last == OF_WHEELHOUSE:
        return True
    return last in PLAIN_NAMES or last.endswith(SUFFIXES[kind])
