"""home/vault.json: who may open the site. Canonical JSON, replaced whole, under a MAC of the master key.

    {"v":1, "vault":id, "epoch":n, "whole":bool, "stage":"", "next":"", "slots":[...], "mac":hex}

`stage` is "" or where a change of the master key stands (rotation.py): "adding" (the new master is in
`next`, under the old one) or "clearing" (the new master is in the slots).
"""

from __future__ import annotations

import fcntl
import hmac
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from appliance.core.errors import Busy, NotFound
from appliance.core.files import write_private
from appliance.core.sealing import SealBroken
from appliance.core.vaulted import AREAS, MAGIC, VAULT, has_vault, is_open
from appliance.security import canonical
from appliance.security.vault.keys import derived

_LARGEST = 1 << 20
_STAGES = ("", "adding", "clearing")
_FIELDS = {"v", "vault", "epoch", "whole", "stage", "next", "slots", "mac"}
_LOCK, _FILES_LOCK = "vault.lock", "vault-files.lock"


@dataclass(frozen=True, kw_only=True)
class Box:
    """What vault.json says. `whole`: nothing in the home is plain any more that should be sealed."""

    vault: str
    epoch: int
    whole: bool
    slots: tuple[dict[str, Any], ...]
    stage: str = ""
    next: str = ""

    def to_json(self) -> dict[str, Any]:
        """All but the MAC."""
        return {
            "v": 1,
            "vault": self.vault,
            "epoch": self.epoch,
            "whole": self.whole,
            "stage": self.stage,
            "next": self.next,
            "slots": list(self.slots),
        }


def exists(root: Path) -> bool:
    """Whether the home in the folder `root` has a vault. Raises VaultGone: it had, or has another's."""
    return has_vault(root)


def read(root: Path) -> tuple[Box, str]:
    """The box and its MAC, which only who has the master key can check (`check`).

    Raises:
        NotFound: the home has no vault. SealBroken: the file is damaged. VaultGone: it is missing from a
            sealed home, or is another home's.
    """
    has_vault(root)
    try:
        with (root / VAULT).open("rb") as stream:
            content = stream.read(_LARGEST + 1)
    except FileNotFoundError:
        raise NotFound("This home has no vault.", "Make one with `cloister init`.") from None
    try:
        if len(content) > _LARGEST:
            raise ValueError("too large")
        held = canonical.decode(content)
        if not isinstance(held, dict) or set(held) != _FIELDS or held["v"] != 1:
            raise ValueError("other fields")
        if type(held["epoch"]) is not int or type(held["whole"]) is not bool or held["stage"] not in _STAGES:
            raise ValueError("other values")
        if not isinstance(held["slots"], list) or not all(isinstance(slot, dict) for slot in held["slots"]):
            raise ValueError("other slots")
        texts = (held["vault"], held["next"], held["mac"])
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("other values")
    except (ValueError, UnicodeDecodeError):
        raise broken() from None
    mac = held["mac"]
    del held["v"], held["mac"]
    return Box(**{**held, "slots": tuple(held["slots"])}), mac


def check(box: Box, mac: str, master: bytes) -> None:
    """Check that the box is, in every field, what somebody with the master key wrote.

    Raises:
        SealBroken: it is not.
    """
    if not hmac.compare_digest(_mac(box, master).encode(), mac.encode("utf-8", "replace")):
        raise broken()


def write(root: Path, box: Box, master: bytes) -> None:
    """Replace vault.json, durably."""
    write_private(root / VAULT, canonical.encode({**box.to_json(), "mac": _mac(box, master)}))


def changed(root: Path, master: bytes, **values: Any) -> Box:
    """The box with other `values`, checked before and written after.

    Raises:
        SealBroken: it was altered, or `master` is not its key.
    """
    box, mac = read(root)
    check(box, mac, master)
    box = replace(box, **values)
    write(root, box, master)
    return box


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Be the one who changes vault.json.

    Raises:
        Busy: somebody else is.
    """
    handle = _locked(root / _LOCK, fcntl.LOCK_EX)
    if handle is None:
        raise Busy("Somebody else changes who may open the site.", "Try again in a moment.")
    try:
        yield
    finally:
        os.close(handle)


def hold(root: Path, *, shared: bool) -> int:
    """Hold the files of the home, shared to read and write them, not shared to change their keys.

    Until the returned descriptor is closed; kill -9 closes it too.

    Raises:
        Busy: somebody holds them otherwise.
    """
    handle = _locked(root / _FILES_LOCK, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    if handle is not None:
        return handle
    if shared:
        raise Busy("The site's files are being sealed, or get other keys.", "Try again when that is done.")
    raise Busy(
        "Other work goes on with the site's files.",
        "Stop its jobs (`cloister job list`) and close other windows.",
    )


def _locked(path: Path, how: int) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def sealed_files(root: Path) -> Iterator[tuple[Path, str]]:
    """The sealed files of a home and their names in it, drafts that a crash left included."""
    for area in sorted(AREAS):
        for path in sorted((root / area).rglob("*")):
            if not path.is_file() or path.is_symlink() or is_open(path.relative_to(root)):
                continue
            with path.open("rb") as stream:
                if stream.read(len(MAGIC)) != MAGIC:
                    continue
            yield path, path.relative_to(root).as_posix()


def broken() -> SealBroken:
    """The error for a vault.json that somebody changed."""
    return SealBroken("vault.json was altered or is damaged.", "Restore it from the backup of this home.")


def _mac(box: Box, master: bytes) -> str:
    key = derived(master, "box", vault=box.vault)
    return hmac.digest(key, canonical.encode(box.to_json()), "sha256").hex()
