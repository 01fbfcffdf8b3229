"""What core/sealing.py asks for: the sealer of an unlocked home in this process.

A face asks the agent again every 30 seconds, so that a lock reaches it; one that is idle, and reads nothing,
too (`look`). A job takes its keys at the start
(`keep`) and hands them to its own children in an anonymous file (core.sealing.inherited), so that it ends
its work although the site was locked meanwhile.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO

from appliance.core import reading, sealing
from appliance.core.sealing import Locked
from appliance.core.vaulted import MAGIC
from appliance.security.vault import box, place
from appliance.security.vault import opened as memory
from appliance.security.vault.keys import StoreKeys, store_keys_from
from appliance.security.vault.sealed import open_sealed, seal, writing

_AGAIN = 30.0  # seconds
_asked: dict[Path, tuple[float, Vault]] = {}
_watched: set[Path] = set()


class Vault:
    """The Sealer of one home. While it is there, the keys of the home cannot be changed."""

    def __init__(self, root: Path, keys: StoreKeys) -> None:
        self.root, self.keys = root, keys
        self._lock = box.hold(root, shared=True)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Let the keys be changed."""
        if getattr(self, "_lock", -1) >= 0:
            os.close(self._lock)
            self._lock = -1

    def seal(self, source: BinaryIO, target: Path, name: str) -> None:
        """See Sealer."""
        seal(source, target, keys=self.keys, name=name)

    def writing(self, handle: int, name: str) -> AbstractContextManager[Callable[[memoryview], None]]:
        """See Sealer."""
        return writing(handle, keys=self.keys, name=name)

    def opened(self, path: Path, name: str) -> io.RawIOBase:
        """See Sealer. A plain file counts only while the home is being sealed for the first time."""
        if not self.keys.whole and not is_sealed(path):
            return io.FileIO(path, "rb")
        return open_sealed(path, keys=self.keys, name=name)

    def touch(self) -> None:
        """See Sealer. A job that keeps its keys may find the site locked."""
        with suppress(Locked):
            place.ask(self.root, "touch")

    def scratch(self) -> Path:
        """See Sealer."""
        return memory.scratch()


def is_sealed(path: Path) -> bool:
    """Whether a file begins as sealed ones do."""
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def opened(root: Path) -> Vault:
    """The sealer of the home in the folder `root`; core/sealing.py calls this.

    Raises:
        Locked: nobody has unlocked it. Busy: its keys are being changed.
    """
    held = _asked.get(root)
    now = time.monotonic()
    if held is not None and now - held[0] < _AGAIN:
        return held[1]
    keys = _inherited(root)
    if keys is None:
        try:
            keys = store_keys_from(place.ask(root, "keys", person=held is None)["keys"])
        except (ValueError, KeyError, TypeError):
            raise Locked from None
        except Locked:
            forget(root)
            raise
    if held is not None and held[1].keys == keys:
        _asked[root] = (now, held[1])
        return held[1]
    vault = Vault(root, keys)
    _asked[root] = (now, vault)
    if not sealing.inherited():
        _watch(root)
    return vault


def _watch(root: Path) -> None:
    """Look after the lock in the background for as long as this process has keys of the home."""
    if root not in _watched:
        _watched.add(root)
        threading.Thread(target=_looking, args=(root,), daemon=True, name="cloister-lock").start()


def _looking(root: Path) -> None:
    try:
        while look(root):
            time.sleep(_AGAIN)
    finally:
        _watched.discard(root)


def look(root: Path) -> bool:
    """Drop the keys of a home and its plain copies if it was locked; whether this process still has any."""
    if root in _asked and not place.running(root):
        forget(root)
    return holds(root)


def holds(root: Path) -> bool:
    """Whether this process, a face, has keys of a home."""
    return root.absolute() in _asked


def keep(root: Path) -> tuple[int, ...]:
    """Have this process, a job, keep its keys to its end, and its children too; their temporary files are
    made in memory. Returns the descriptors that must stay open for that.

    Does nothing for a home without a vault.

    Raises:
        Locked: the site is locked.
    """
    root = root.absolute()
    if not sealing.sealed_home(root):
        return ()
    keys = _inherited(root)
    if keys is None:
        keys = store_keys_from(place.ask(root, "keys", person=False)["keys"])
    vault = Vault(root, keys)
    sealing.mount(root, vault)
    handle = os.memfd_create(sealing.KEYS, os.MFD_ALLOW_SEALING)
    os.write(handle, json.dumps({"root": str(root), "keys": keys.to_json()}).encode())
    os.environ[sealing.KEYS] = str(handle)
    os.environ["TMPDIR"] = os.environ["SQLITE_TMPDIR"] = str(memory.scratch())
    tempfile.tempdir = None  # it is looked up again
    return handle, vault._lock


def forget(root: Path) -> None:
    """Drop the keys of a home from this process, and its plain copies."""
    root = root.absolute()
    reading.forget(root)
    held = _asked.pop(root, None)
    if held is not None:
        held[1].close()


def _inherited(root: Path) -> StoreKeys | None:
    """The keys that a job handed to this child of its; None where it did not."""
    handle = sealing.inherited()
    if not handle:
        return None
    try:
        held = json.loads(os.pread(handle[0], 1 << 20, 0))
        return store_keys_from(held["keys"]) if held["root"] == str(root) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
