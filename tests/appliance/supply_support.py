"""Tiny wheels, made here, and a real environment that pip installs them into without a network."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
if str(PACKAGING) not in sys.path:
    sys.path.append(str(PACKAGING))

import offline  # noqa: E402
import wheelhouse as maker  # noqa: E402

APP = {
    "tinyapp/__init__.py": b"VALUE = 1\n",
    "tinyapp/deep/part.py": b"PART = 2\n",
    "tinyapp/page.html": b"<p>",
}
LIB = {"tinylib.py": b"def answer():\n    return 42\n"}


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    files: dict[str, bytes],
    *,
    requires: tuple[str, ...] = (),
    extra: str = "License-Expression: MIT\n",
) -> Path:
    """A pure wheel."""
    info = f"{name}-{version}.dist-info"
    lines = "".join(f"Requires-Dist: {one}\n" for one in requires)
    text = (
        f"Metadata-Version: 2.4\nName: {name.replace('_', '-')}\nVersion: {version}\n{extra}{lines}\nText\n"
    )
    members = dict(files)
    members[f"{info}/METADATA"] = text.encode()
    members[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    members[f"{info}/entry_points.txt"] = f"[console_scripts]\nrun-{name} = json.tool:main\n".encode()
    rows = [f"{path},sha256={encoded(content)},{len(content)}\n" for path, content in members.items()]
    members[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in members.items():
            archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), content)
    return wheel


def encoded(content: bytes) -> str:
    """A digest as a RECORD has it."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def make_wheelhouse(folder: Path) -> Path:
    """A wheelhouse of two tiny wheels, one of them called as ours is."""
    make_wheel(folder / "wheels", "cloister", "0.0.1", APP, requires=("tiny-lib>=1",))
    make_wheel(folder / "wheels", "tiny_lib", "1.0+local.1", LIB)
    maker.describe(folder, "edge")
    return folder


def make_tools(folder: Path) -> Path:
    """What passes for an environment with pip: this one's."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return folder


def make_environment(folder: Path, house: Path) -> Path:
    """A real environment with the packages of `house`; returns its site-packages."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    offline.put(house, venv, make_tools(folder / "tools"), compiled=True)
    return next((venv / "lib").glob("python3*/site-packages"))


def copied(place: Path, to: Path) -> Path:
    """The same environment elsewhere, to be harmed."""
    shutil.copytree(place.parents[2], to, symlinks=True)
    return to / place.relative_to(place.parents[2])


def rewrite(place: Path, file: str, content: bytes) -> None:
    """Alter a file and its line in RECORD, as somebody who knows how would."""
    before = encoded((place / file).read_bytes()).encode()
    (place / file).write_bytes(content)
    for record in place.glob("*.dist-info/RECORD"):
        record.write_bytes(record.read_bytes().replace(before, encoded(content).encode()))
