"""Rounds without a link: what would cross it lies in files, and people carry them.

    stick/sites/NAME         the coordinator carries this site's rounds (an empty file)
    stick/out/NAME.frame     the newest that waits to be carried there; at a site, NAME is `coordinator`
    stick/in/NAME.frame      what was carried here and has not been taken

Only the job runs rounds; commands put files in and take files out (carrying.py). What was taken is removed
when the next is asked for, after its answer lies on the disk, so a kill loses nothing: rounds and answers
are given once however often they are asked for.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from appliance.core.files import write_bytes
from appliance.core.reading import read_bytes
from federated.flower.frames import Ends, Frame, packed, unpacked

COORDINATOR = "coordinator"
_LOOK = 0.2


class _Files:
    """The three folders, and what was taken last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken: tuple[Path, int] | None = None  # and its inode: a newer one may lie there by now

    @property
    def sites(self) -> frozenset[str]:
        folder = self.folder / "sites"
        return frozenset(one.name for one in folder.iterdir()) if folder.is_dir() else frozenset()

    def take(self) -> Frame | None:
        """The next that was carried here."""
        if self._taken is not None:
            path, inode = self._taken
            if path.exists() and path.stat().st_ino == inode:
                path.unlink()
            self._taken = None
        for path in sorted((self.folder / "in").glob("*.frame")):
            inode = path.stat().st_ino
            try:
                frame = unpacked(read_bytes(path))
            except ValueError:
                path.unlink()
                continue
            self._taken = path, inode
            return frame
        return None


class HubStick:
    """The coordinator's line: the sites of the link, and those that are carried, which are always there."""

    def __init__(self, line: Ends, folder: Path) -> None:
        self._line, self._files = line, _Files(folder)
        self._linked: frozenset[str] = frozenset()
        self._told: frozenset[str] | None = None

    @property
    def carried(self) -> frozenset[str]:
        """The sites that are carried."""
        return self._files.sites

    def send(self, what: str, body: bytes = b"", **head: Any) -> None:
        """Send a frame; what a carried site is asked goes into its file."""
        if what != "ask":
            self._line.send(what, body, **head)
            return
        for site in set(head["sites"]) & self.carried:
            put(self._files.folder, "out", site, Frame(head={"what": what, **head}, body=body))
        if linked := sorted(set(head["sites"]) - self.carried):
            self._line.send(what, body, **(head | {"sites": linked}))

    def receive(self, timeout: float | None = None) -> Frame | None:
        """The next frame of either way; None when the link ended."""
        there = self._linked | self.carried
        if self._told is None or there != self._told:
            self._told = there
            return Frame(head={"what": "there", "sites": sorted(there)})
        if frame := self._files.take():
            return frame
        frame = self._line.receive(timeout)
        if frame is None or frame.what != "there":
            return frame
        self._linked = frozenset(frame.head["sites"])
        self._told = self._linked | self.carried
        return Frame(head=frame.head | {"sites": sorted(self._told)})


class SiteStick:
    """A site's line without a link: requests come as files, answers go into one."""

    carried: frozenset[str] = frozenset()

    def __init__(self, folder: Path) -> None:
        self._files = _Files(folder)

    def send(self, what: str, body: bytes = b"", **head: Any) -> None:
        """Lay the answer out, to be carried."""
        put(self._files.folder, "out", COORDINATOR, Frame(head={"what": what, **head}, body=body))

    def receive(self, timeout: float | None = None) -> Frame | None:
        """The next request."""
        limit = time.monotonic() + (timeout or 0.0)
        while (frame := self._files.take()) is None:
            if timeout is not None and time.monotonic() >= limit:
                raise TimeoutError
            time.sleep(_LOOK)
        return frame


def put(folder: Path, way: str, name: str, frame: Frame) -> None:
    """Lay a frame down whole; it takes the place of an older one.

    Raises:
        NoRoom, OSError: the disk.
    """
    place = folder / way
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_bytes(place / f"{name}.frame", packed(frame))


def waiting(folder: Path, name: str) -> Frame | None:
    """What waits to be carried to `name`."""
    path = folder / "out" / f"{name}.frame"
    return unpacked(read_bytes(path)) if path.is_file() else None


def carry(folder: Path, site: str) -> None:
    """From now on this site's rounds are carried."""
    place = folder / "sites"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_bytes(place / site, b"")


def link_again(folder: Path, site: str) -> None:
    """From now on this site has a link."""
    (folder / "sites" / site).unlink(missing_ok=True)
