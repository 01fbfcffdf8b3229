"""Which files of a home are sealed, and who seals them: core knows that there is a vault, not how it works.

A home with a vault.json is sealed (vaulted.py): everything below AREAS is written and read through the
Sealer of that home, except what OPEN names. A process that has not mounted one asks for it at the first file,
and gets Locked where the site is: nothing is ever written plain because somebody forgot to mount.
"""

from __future__ import annotations

import importlib
import io
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from appliance.core.errors import ApplianceError
from appliance.core.vaulted import AREAS, has_vault, is_open

KEYS = "CLOISTER_KEYS"

_SEALERS = "appliance.security.vault.mounted"
"""Named, not imported: core depends on nothing, and a site without a vault never loads cryptography."""


class Locked(ApplianceError):
    """The site is sealed and nobody has unlocked it."""

    code = "locked"
    exit_code = 12

    def __init__(self, message: str = "The site is locked.", hint: str = "Run `cloister unlock`.") -> None:
        super().__init__(message, hint)


class SealBroken(ApplianceError):
    """A sealed file that was altered, cut, moved, or sealed under another key."""

    code = "seal-broken"
    exit_code = 12


class Sealer(Protocol):
    """What a mounted vault does. `name` is a file's path inside its home: it is part of what is sealed."""

    def seal(self, source: BinaryIO, target: Path, name: str) -> None:
        """Write all of `source` sealed to the new file `target`, which will be moved to `name`; fsynced."""

    def writing(self, handle: int, name: str) -> AbstractContextManager[Callable[[memoryview], None]]:
        """Give what takes the parts of a file in turn; they are sealed into the empty file open as `handle`,
        which will be moved to `name`, and fsynced at the end of the block."""

    def opened(self, path: Path, name: str) -> io.RawIOBase:
        """The plain content of the sealed file `path`.

        Raises:
            SealBroken: it is not what was sealed under `name`.
        """

    def touch(self) -> None:
        """A person did something: the site does not lock for a while."""

    def scratch(self) -> Path:
        """A new private folder in memory, gone with this process.

        Raises:
            NoRoom: this machine has no folder in memory. Locked: its swap would write it to a disk.
        """


def draft_of(path: Path) -> Path:
    """Where the next content of `path` is written: no other process and no other thread does so there.

    The last number is the process: files.sweep removes what a killed one left.
    """
    return path.with_name(f".{path.name}.{threading.get_native_id()}.{os.getpid()}.tmp")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a sealed file lies: the home's folder and the path inside it."""

    root: Path
    path: Path

    @property
    def name(self) -> str:
        """The path inside the home, with slashes."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def sealer(self) -> Sealer:
        """Who seals here.

        Raises:
            Locked: nobody has unlocked the site.
        """
        held = _mounted.get(self.root)
        if held is not None:
            return held
        return cast(Sealer, importlib.import_module(_SEALERS).opened(self.root))

    def seal(self, source: BinaryIO) -> None:
        """Replace the file by `source`, sealed: a crash leaves the old file or the new one."""
        draft = draft_of(self.path)
        draft.unlink(missing_ok=True)  # of a process that was killed, and whose numbers this one got
        try:
            self.sealer.seal(source, draft, self.name)
            draft.replace(self.path)
            _sync(self.path.parent)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def seal_folder(self, source: Path) -> None:
        """Replace the folder by the files below `source`, sealed."""
        draft = draft_of(self.path)
        shutil.rmtree(draft, ignore_errors=True)
        try:
            draft.mkdir(mode=0o700, parents=True)
            for file in sorted(source.rglob("*")):
                inside = file.relative_to(source)
                if file.is_dir():
                    (draft / inside).mkdir(mode=0o700, exist_ok=True)
                elif file.is_file():
                    (draft / inside).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    with file.open("rb", buffering=0) as stream:
                        self.sealer.seal(
                            cast(BinaryIO, stream), draft / inside, f"{self.name}/{inside.as_posix()}"
                        )
            for folder in [*(each for each in draft.rglob("*") if each.is_dir()), draft]:
                _sync(folder)
            if self.path.exists():
                shutil.rmtree(self.path)
            draft.rename(self.path)
            _sync(self.path.parent)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def opened(self) -> io.RawIOBase:
        """The plain content."""
        return self.sealer.opened(self.path, self.name)


_mounted: dict[Path, Sealer] = {}


def mount(root: Path, sealer: Sealer) -> None:
    """Have `sealer` seal the home in the folder `root`, in this process."""
    _mounted[root.absolute()] = sealer


def unmount(root: Path) -> None:
    """Forget the sealer of a home."""
    _mounted.pop(root.absolute(), None)


def place(path: Path) -> Place | None:
    """Where `path` lies when it belongs to the sealed part of a home, else None.

    Raises:
        VaultGone: the home is sealed, and its vault.json is missing or another's.
    """
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - links are not followed: names are as in the database
    for root in whole.parents:
        inside = whole.relative_to(root)
        if inside.parts[0] in AREAS and has_vault(root):
            return None if is_open(inside) else Place(root=root, path=whole)
    return None


def sealed_home(root: Path) -> bool:
    """Whether the home in `root` has a vault. Raises VaultGone, as `place`."""
    return has_vault(root)


def inherited() -> tuple[int, ...]:
    """The descriptors that a child must inherit (`pass_fds`) to read the files of a sealed home.

    Only jobs have one: security/vault/mounted.py puts their keys into an anonymous file named KEYS.
    """
    number = os.environ.get(KEYS, "")
    try:
        found = number.isdigit() and str(Path(f"/proc/self/fd/{number}").readlink())
    except OSError:
        return ()
    return (int(number),) if found and found.startswith(f"/memfd:{KEYS}") else ()


def check_unlocked(root: Path) -> None:
    """Check that what is in the home `root` can be read; somebody is about to start something.

    Raises:
        Locked: it has a vault and nobody has unlocked it.
    """
    if sealed_home(root):
        Place(root=root.absolute(), path=root.absolute()).sealer.touch()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
