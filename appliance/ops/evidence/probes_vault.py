"""Probes of data at rest: sealed files, idle lock, recovery, swap, the disk beneath, erasure by key."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from appliance.core.home import Home
from appliance.core.vaulted import AREAS, MAGIC, is_open
from appliance.ops.evidence.shape import Found, Look, absent, count, lacks, supports
from appliance.security.log.entries import entries
from appliance.security.vault import opened, unlocking
from appliance.security.vault.slots import RECOVERY

LONGEST_IDLE = 30
"""Minutes of an idle lock that still support automatic logoff: our choice, no law names a number."""


def sealed(look: Look) -> Found:
    """Every file that may hold people's words begins as sealed ones do."""
    told = unlocking.status(look.home)
    if not told["vault"]:
        return lacks(
            "The data, models and reports of this site are not sealed: they lie on the disk in plain."
        )
    all_files = list(_files(look.home))
    plain = [path for path in all_files if not _is_sealed(path)]
    if plain or not told["whole"]:
        return lacks(
            f"{len(plain):,} of {count(len(all_files), 'file')} are not sealed yet: cloister vault seal.",
            files=len(all_files),
            plain=len(plain),
        )
    return supports(
        f"{count(len(all_files), 'file')} of data, models, feedback, documents, reports and jobs: all sealed"
        " with AES-256-GCM under a key for each file. Not sealed: the database and jobs' events (ids, names,"
        " hashes, counts), bundles that came in, and the keys of the site and its endpoint.",
        files=len(all_files),
        plain=0,
        key_epoch=told["epoch"],
    )


def idle(look: Look) -> Found:
    """How long nobody may be there before the keys are gone."""
    told = unlocking.status(look.home)
    if not told["vault"]:
        return lacks("Nothing locks: this site is not sealed.")
    minutes = told["agent"]["limit"] // 60 if "agent" in told else int(unlocking.MINUTES)
    now = "it is locked now" if told["locked"] else "it is unlocked now"
    if minutes > LONGEST_IDLE:
        return lacks(f"The site locks only after {minutes} minutes without a person; {now}.", minutes=minutes)
    return supports(
        f"The site locks after {minutes} minutes without a person, and nobody is signed in any more; jobs"
        f" that run keep their keys to their end. {now.capitalize()}.",
        minutes=minutes,
        locked=told["locked"],
    )


def recovery(look: Look) -> Found:
    """Recovery shares, and whether they were ever used."""
    told = unlocking.status(look.home)
    if not told["vault"]:
        return absent("This site is not sealed, so nothing has to be recovered to open it.")
    if not any(slot["kind"] == RECOVERY for slot in told["slots"]):
        return lacks(
            "There are no recovery shares: if passphrases are lost, all is lost (cloister vault recovery)."
        )
    made, used = entries(look.home, "vault.recovery"), entries(look.home, "vault.recover")
    tried = f"used {len(used)} times, last on {used[-1][:10]}" if used else "never tried here: practise it"
    return supports(
        "Recovery shares open the site when passphrases are lost; "
        + (f"made on {made[-1][:10]}, " if made else "")
        + f"{tried}.",
        used=len(used),
    )


def swap(look: Look) -> Found:
    """Whether memory can reach a disk in plain text."""
    found = opened.swap()
    if found:
        return lacks(
            f"Memory can be written in plain text to {', '.join(found)} (swapoff -a, or encrypt it)."
        )
    return supports("This machine has no swap that would write memory to a disk in plain text.")


def disk(look: Look) -> Found:
    """LUKS beneath the home, or whatever dm-crypt there is."""
    found = encrypted_beneath(look.home.path)
    if found is None:
        raise OSError("the disk beneath the home folder cannot be seen from here (a container, or ZFS)")
    if not found:
        return lacks(
            "The disk beneath the home folder is not encrypted (LUKS is recommended as a second layer)."
        )
    return supports("The disk beneath the home folder is encrypted by the kernel (dm-crypt).")


def erase(look: Look) -> Found:
    """Whether throwing keys away erases."""
    told = unlocking.status(look.home)
    if not told["vault"] or not told["whole"]:
        return lacks(
            "Files are not all sealed, so throwing keys away erases nothing: wipe or shred the disk."
        )
    turned = entries(look.home, "vault.rotate.end")
    last = f"rotated {len(turned)} times, last on {turned[-1][:10]}" if turned else "never rotated"
    return supports(
        "What is sealed needs vault.json and a passphrase or shares: destroying these, with their backups,"
        f" makes it unreadable. Keys: epoch {told['epoch']}, {last}.",
        epoch=told["epoch"],
        rotations=len(turned),
    )


def encrypted_beneath(
    folder: Path, *, system: Path = Path("/sys"), mounts: Path = Path("/proc/self/mountinfo")
) -> bool | None:
    """Whether dm-crypt lies beneath the file system of `folder`; None where no disk can be seen.

    By the device number of the folder, else the source of its mount (btrfs), in /sys/dev/block.
    """
    number = folder.stat().st_dev
    device = system / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}"
    if not device.exists():
        source = _source(number, mounts)
        device = system / "class" / "block" / Path(os.path.realpath(source)).name if source else device
    return _encrypted(device.resolve()) if device.exists() else None


def _encrypted(device: Path) -> bool:
    """A dm-crypt device, or one all of whose parts lie on such (LVM or RAID above LUKS)."""
    uuid = device / "dm" / "uuid"
    if uuid.is_file() and uuid.read_text(encoding="ascii").startswith("CRYPT-"):
        return True
    parts = list((device / "slaves").iterdir()) if (device / "slaves").is_dir() else []
    return bool(parts) and all(_encrypted(part.resolve()) for part in parts)


def _source(number: int, mounts: Path) -> str | None:
    """The device that a mount comes from (proc(5), mountinfo: its third field is the number)."""
    wanted = f"{os.major(number)}:{os.minor(number)}"
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted and after.split()[1].startswith("/dev/"):
            return after.split()[1]
    return None


def _files(home: Home) -> Iterator[Path]:
    for area in sorted(AREAS):
        for path in sorted((home.path / area).rglob("*")):
            if path.is_file() and not path.is_symlink() and not is_open(path.relative_to(home.path)):
                yield path


def _is_sealed(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


PROBES = {
    "sealed": sealed,
    "idle lock": idle,
    "recovery": recovery,
    "swap": swap,
    "disk": disk,
    "erase by key": erase,
}
