"""The list of what the software is made of: CycloneDX 1.6 JSON, from the packages' own METADATA.

Format: https://cyclonedx.org/docs/1.6/json/. Same packages, same bytes: no serial number, no time but
SOURCE_DATE_EPOCH, everything sorted. A dependency counts if its package is there and no unasked extra
wants it; other conditions are not evaluated: what they rule out is not there.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

from appliance.core.files import sha256_file
from appliance.security.supply.records import OWN, normal, packages_in

_LONGEST_LICENCE = 64  # what is longer is the licence's text, not its name
_REQUIREMENT = re.compile(
    r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?([^;]*)(?:;(.*))?\Z", re.DOTALL
)
_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One package: what its METADATA says, and the SHA-256 of its wheel where that is known."""

    name: str
    version: str
    licences: tuple[dict[str, Any], ...]
    summary: str
    requires: tuple[str, ...]
    sha256: str | None = None

    @property
    def purl(self) -> str:
        """Its package URL; our own package comes from no index."""
        kind = "generic" if normal(self.name) == OWN else "pypi"
        return f"pkg:{kind}/{normal(self.name)}@{quote(self.version, safe='.-_~')}"


def of_wheels(wheels: Iterable[Path]) -> list[Part]:
    """The parts that `wheels` are.

    Raises:
        ValueError, OSError, zipfile.BadZipFile: one is no wheel.
    """
    parts = []
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
            if len(names) != 1:
                raise ValueError(f"{wheel.name} has not one METADATA")
            parts.append(_part(archive.read(names[0]), sha256_file(wheel)))
    return parts


def of_installed(place: Path, wheels: Mapping[str, str] | None = None) -> list[Part]:
    """The parts installed in the site-packages folder `place`; `wheels`: known hashes by `name==version`."""
    parts = []
    for package in packages_in(place):
        metadata = package.folder / "METADATA"
        if metadata.is_file():
            part = _part(metadata.read_bytes(), None)
            known = (wheels or {}).get(f"{normal(part.name)}=={part.version}")
            parts.append(part if known is None else _part(metadata.read_bytes(), known))
    return parts


def bom(parts: Sequence[Part], *, profile: str) -> dict[str, Any]:
    """The CycloneDX document of `parts`; our own package among them is what the document is about.

    Raises:
        ValueError: two parts are the same package.
    """
    by_name = {normal(part.name): part for part in parts}
    if len(by_name) != len(parts):
        raise ValueError("a package is there twice")
    own = by_name.get(OWN)
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    metadata: dict[str, Any] = {}
    if epoch:
        metadata["timestamp"] = datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if own is not None:
        metadata["component"] = _component(own, "application")
    metadata["properties"] = [{"name": "cloister:profile", "value": profile}]
    others = [part for name, part in sorted(by_name.items()) if name != OWN]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": metadata,
        "components": [_component(part, "library") for part in others],
        "dependencies": _graph(by_name, profile),
    }


def as_bytes(document: Mapping[str, Any]) -> bytes:
    """The file's content."""
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode()


def _component(part: Part, kind: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "type": kind,
        "bom-ref": part.purl,
        "name": part.name,
        "version": part.version,
        "purl": part.purl,
    }
    if part.summary:
        told["description"] = part.summary
    if part.licences:
        told["licenses"] = list(part.licences)
    if part.sha256:
        told["hashes"] = [{"alg": "SHA-256", "content": part.sha256}]
    return told


def _graph(by_name: Mapping[str, Part], profile: str) -> list[dict[str, Any]]:
    """Who needs whom. Extras that somebody asks for count, so it is walked until no more are asked for."""
    asked: dict[str, set[str]] = {name: set() for name in by_name}
    if OWN in asked:
        asked[OWN].add(profile)
    edges: dict[str, set[str]] = {}
    while True:
        before = sum(map(len, asked.values()))
        for name, part in by_name.items():
            edges[name] = set()
            for line in part.requires:
                needed, extras, wanted_by = _requirement(line)
                if needed in by_name and (not wanted_by or wanted_by & asked[name]):
                    asked[needed] |= extras
                    edges[name] |= {needed} - {name}
        if sum(map(len, asked.values())) == before:
            break
    return [
        {"ref": by_name[name].purl, "dependsOn": sorted(by_name[other].purl for other in edges[name])}
        for name in sorted(by_name)
    ]


def _requirement(line: str) -> tuple[str, set[str], set[str]]:
    """Name, extras asked of it, and the extras of the asker that bring it in."""
    found = _REQUIREMENT.match(line)
    if found is None:
        return "", set(), set()
    extras = {extra.strip() for extra in (found[2] or "").split(",")} - {""}
    return normal(found[1]), extras, set(_EXTRA.findall(found[4] or ""))


def _part(metadata: bytes, sha256: str | None) -> Part:
    told = BytesParser().parsebytes(metadata.partition(b"\n\n")[0], headersonly=True)
    name, version = told["Name"], told["Version"]
    if not name or not version:
        raise ValueError("a package has no name or no version")
    summary = str(told["Summary"] or "")
    return Part(
        name=str(name),
        version=str(version),
        licences=_licences(told),
        summary=" ".join(summary.split()),
        requires=tuple(str(line) for line in told.get_all("Requires-Dist") or ()),
        sha256=sha256,
    )


def _licences(told: Message) -> tuple[dict[str, Any], ...]:
    """An SPDX expression, else the licence by name, else what the classifiers say."""
    if expression := told["License-Expression"]:
        return ({"expression": str(expression).strip()},)
    named = str(told["License"] or "").strip()
    if named and len(named) <= _LONGEST_LICENCE and "\n" not in named and named.upper() != "UNKNOWN":
        return ({"license": {"name": named}},)
    lines = [str(line) for line in told.get_all("Classifier") or () if str(line).startswith("License ::")]
    names = sorted({line.rpartition("::")[2].strip() for line in lines} - {"OSI Approved"})
    return tuple({"license": {"name": name}} for name in names)
