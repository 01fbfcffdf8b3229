"""Unlocks and locks a site, and speaks with its key agent: what the door and other rooms call."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

from appliance.core import sealing
from appliance.core.errors import ApplianceError, ConfigWrong
from appliance.core.home import Home
from appliance.core.sealing import Locked
from appliance.security import canonical
from appliance.security.vault import box as boxes
from appliance.security.vault import opened, place, slots
from appliance.security.vault.keys import store_keys
from appliance.security.vault.slots import Opened
from appliance.security.vault.tries import attempt

MINUTES = 10.0


def unlock(
    home: Home, name: str, words: str, *, minutes: float = MINUTES, allow_swap: bool = False
) -> Opened:
    """Start the key agent of `home`, or, where it runs, sign `name` in on this terminal.

    Raises:
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
        if mine.signing:
            sign_in(home, name, mine.signing)
        place.ask(home.path, "touch")
    else:
        start(home, mine.master, name=name, signing=mine.signing, minutes=minutes)
    opened.sweep()
    return mine


def start(
    home: Home, master: bytes, *, name: str = "", signing: bytes | None = None, minutes: float = MINUTES
) -> None:
    """Start the agent with `master`, detached from this terminal.

    Raises:
        ApplianceError: it does not start. SealBroken: `master` is not the key of vault.json.
    """
    box, mac = boxes.read(home.path)
    boxes.check(box, mac, master)
    keys = store_keys(master, vault=box.vault, epoch=box.epoch, whole=box.whole)
    order = {
        "keys": keys.to_json(),
        "name": name,
        "signing": signing.hex() if signing else "",
        "session": os.getsid(0),
        "seconds": max(1, round(minutes * 60)),
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "appliance.security.vault.agent", str(home.path)],
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
    """End the agent and forget the keys in this process; False if the site was locked already."""
    sealing.unmount(home.path)
    _forget(home)
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


def sign_in(home: Home, name: str, signing: bytes) -> None:
    """Have the agent sign for `name` on this terminal session.

    Raises:
        Locked: the site is locked.
    """
    place.ask(home.path, "sign_in", name=name, signing=signing.hex())


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


def _forget(home: Home) -> None:
    from appliance.security.vault import mounted

    mounted.forget(home.path)
