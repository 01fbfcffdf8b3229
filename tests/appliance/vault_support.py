"""A home with a vault, unlocked in this process without an agent where that is enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.core import sealing
from appliance.core.home import Home, open_home
from appliance.security.vault import box, mounted, slots, unlocking
from appliance.security.vault.keys import StoreKeys, store_keys

WORDS = "seven grey herons wade"
CANARY = "CANARY-Zoltan Quux, born 1931-02-03, MRN 00417"


def sealed_home(folder: Path) -> tuple[Home, bytes]:
    """A new home with a vault, locked; and its master key."""
    home = open_home(folder)
    return home, slots.create(home, "mira", WORDS)


def keys_of(home: Home, master: bytes) -> StoreKeys:
    found, _ = box.read(home.path)
    return store_keys(master, vault=found.vault, epoch=found.epoch, whole=found.whole)


@contextmanager
def unlocked(home: Home, master: bytes) -> Iterator[mounted.Vault]:
    vault = mounted.Vault(home.path, keys_of(home, master))
    sealing.mount(home.path, vault)
    try:
        yield vault
    finally:
        sealing.unmount(home.path)
        vault.close()


@contextmanager
def agent(home: Home, master: bytes, **more: float) -> Iterator[None]:
    unlocking.start(home, master, **more)  # type: ignore[arg-type]
    try:
        yield
    finally:
        unlocking.lock(home)
