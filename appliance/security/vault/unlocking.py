"""Unlocks and locks a site, and speaks with its key agent: what the door and other rooms call."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from appliance.core import sealing
from appliance.core.errors import ApplianceError, ConfigWrong
from appliance.core.home import Home
from appliance.core.sealing import Locked, SealBroken
from appliance.core.vaulted import gone
from appliance.security import canonical
from appliance.security.vault import box as boxes
from appliance.security.vault import header as heads
from appliance.security.vault import mounted, opened, place, slots
from appliance.security.vault.following import Followed
from appliance.security.vault.keys import StoreKeys, store_keys, wrap_seed
from appliance.security.vault.mounted import is_sealed
from appliance.security.vault.sealed import open_sealed
from appliance.security.vault.slots import Opened
from appliance.security.vault.tries import attempt

MINUTES = 10.0
_TRIED = 8  # files, to see whose the keys are


def unlock(
    home: Home, name: str, words: str, *, minutes: float = MINUTES, allow_swap: bool = False
) -> Opened:
    """Start the key agent of `home`, or, where it runs, tell it that a person is there.

    Raises:
        VaultGone: vault.json is another home's.
        PassphraseWrong: name and passphrase do not open it. LockedOut: too many wrong ones.
        ConfigWrong: this machine would write memory to a plain swap. SealBroken: vault.json was altered.
    """
    if (found := opened.swap()) and not allow_swap:
        raise ConfigWrong(
            f"This machine writes memory to {', '.join(found)} in plain text.",
            "Turn it off (swapoff -a) or encrypt it; --allow-swap unlocks all the same.",
        )
    with attempt(home.path):
        mine = slots.open_slot(home, name, words)
    if place.running(home.path):
        place.ask(home.path, "touch")
    else:
        start(home, mine.master, minutes=minutes)
    opened.sweep()
    return mine


def start(home: Home, master: bytes, *, minutes: float = MINUTES) -> None:
    """Start the agent with `master`, detached from this terminal.

    Raises:
        ApplianceError: it does not start. SealBroken: `master` is not the key of vault.json. VaultGone: it
            opens none of the home's files.
    """
    box, mac = boxes.read(home.path)
    boxes.check(box, mac, master)
    keys = store_keys(master, vault=box.vault, epoch=box.epoch, whole=box.whole)
    _check_opens(home, keys)
    order = {
        "master": master.hex(),
        "vault": box.vault,
        "epoch": box.epoch,
        "whole": box.whole,
        "seconds": max(1, round(minutes * 60)),
    }
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "appliance.security.vault.agent", str(home.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    _agents[:] = [old for old in _agents if old.poll() is None] + [child]
    assert child.stdin is not None and child.stdout is not None  # noqa: S101
    with child.stdout:
        try:
            with child.stdin:
                child.stdin.write(canonical.encode(order) + b"\n")
        except BrokenPipeError:
            pass
        if child.stdout.readline() != b"ready\n":
            child.kill()
            raise ApplianceError(
                "The key agent did not start.", "Check the space and rights of the home folder."
            )


_agents: list[subprocess.Popen[bytes]] = []  # kept so that ended ones can be reaped


def lock(home: Home, *, patience: float = 5.0) -> bool:
    """End the agent and forget the keys in this process; False if the site was locked already.

    What killed processes left in memory is removed too.
    """
    sealing.unmount(home.path)
    mounted.forget(home.path)
    opened.sweep()
    if not place.running(home.path):
        return False
    place.ask(home.path, "lock")
    limit = time.monotonic() + patience
    while place.running(home.path) and time.monotonic() < limit:
        time.sleep(0.02)
    for child in _agents:
        with suppress(subprocess.TimeoutExpired):
            child.wait(0.5)
    return True


def _check_opens(home: Home, keys: StoreKeys) -> None:
    """Check that the keys are this home's: whoever brings a vault.json of their own has its passphrase.

    One that says that plain files count must be no older than any sealed file: it would have them read again.
    """
    if not keys.whole and any(_is_newer(path, keys.epoch) for path, _ in boxes.sealed_files(home.path)):
        raise gone("is from before everything was sealed")
    files = (each for each in boxes.sealed_files(home.path) if not _draft(each[1]))
    first = [(path, path.relative_to(home.path).as_posix()) for path in [home.identity] if path.exists()]
    some = [each for each in [*first, *islice(files, _TRIED)] if is_sealed(each[0])]
    for path, name in some:
        with suppress(SealBroken), open_sealed(path, keys=keys, name=name):
            return
    if some:
        raise gone("opens none of its files: it is another home's, or from before a change of keys")


def _is_newer(path: Path, epoch: int) -> bool:
    with path.open("rb") as stream:
        content = stream.read(heads.LENGTH)
    try:
        found = [head.epoch for head in heads.read_headers(content) if head is not None]
    except ValueError:  # cut short
        return False
    return bool(found) and min(found) > epoch


def _draft(name: str) -> bool:
    """Whether a crash may have left this file before it had its name."""
    return any(part.startswith((".", "draft-")) for part in name.split("/"))


def hold(home: Home, name: str, words: str, seed: bytes) -> str:
    """A way to unlock for a person who is not listed yet, for `follow`; `seed` is of the key they will have.

    Raises:
        Locked: the site is locked.
    """
    head, first = slots.prepared(name, words)
    return str(place.ask(home.path, "hold", head=head, first=first.hex(), signing=seed.hex())["held"])


def follow(home: Home, held: str = "") -> Followed:
    """Have the slots follow the list of people (following.py).

    Raises:
        Locked: the site is locked. ConfigWrong: the agent refuses.
    """
    told = place.ask(home.path, "follow", held=held)
    return Followed(added=tuple(told["added"]), removed=tuple(told["removed"]))


def sign_in(home: Home, name: str, signing: bytes, *, master: bytes | None = None) -> None:
    """Have the agent sign for `name` on this terminal session.

    With the `master` key, which who has a slot has just opened, the seed `signing` goes over sealed under it:
    whoever listens in the agent's place learns nothing. Without, place.py's look at the listener is all.

    Raises:
        Locked: the site is locked. ConfigWrong: the agent refuses.
    """
    words = signing.hex()
    if master is not None:
        session = os.getsid(0)
        bound: dict[str, object] = {"name": name, "session": session, "began": place.leader(session)}
        words = wrap_seed(master, signing, vault=boxes.read(home.path)[0].vault, bound=bound)
    place.ask(home.path, "sign_in", name=name, signing=words, sealed=master is not None)


def sign_out(home: Home) -> None:
    """Have nobody signed in on this terminal session.

    Raises:
        Locked: the site is locked.
    """
    place.ask(home.path, "sign_out")


def who(home: Home) -> str | None:
    """Who is signed in on this terminal session.

    Raises:
        Locked: the site is locked.
    """
    return place.ask(home.path, "who")["name"] or None


def sign(home: Home, payload: bytes) -> tuple[str, bytes]:
    """The name of who is signed in here, and their Ed25519 signature of `payload`.

    The caller puts the purpose in front of the payload.

    Raises:
        Locked: the site is locked. ConfigWrong: nobody is signed in on this terminal.
    """
    told = place.ask(home.path, "sign", payload=payload.hex())
    return told["name"], bytes.fromhex(told["signature"])


def touch(home: Home) -> None:
    """Say that a person is there, so that the site does not lock.

    Raises:
        Locked: it has.
    """
    place.ask(home.path, "touch")


def status(home: Home) -> dict[str, Any]:
    """What the vault of `home` is like: for people, never secret.

    Raises:
        SealBroken: vault.json is damaged.
    """
    if not boxes.exists(home.path):
        return {"vault": False, "locked": False}
    box, _ = boxes.read(home.path)
    told: dict[str, Any] = {
        "vault": True,
        "locked": True,
        "whole": box.whole,
        "epoch": box.epoch,
        "rotating": bool(box.stage),
        "slots": slots.people(home),
        "swap": opened.swap(),
    }
    with suppress(Locked, ConfigWrong):
        told |= {"locked": False, "agent": place.ask(home.path, "status")}
    return told
