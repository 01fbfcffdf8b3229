"""The slots follow the signed list of people: who is removed loses theirs, who is new gets one.

A slot needs the master key, which only the key agent has; the passphrase is typed when two people have not
yet agreed. So what the new slot needs (its K1) is given to the agent then, which gives it back under a key of
its own, bound to the person's public key (`hold`). When the change is agreed to, the agent reads the list,
which its people have signed, and enters just that (`follow`). Nothing that a process says to the agent makes
a slot for anybody else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from appliance.core.home import Home
from appliance.security import canonical
from appliance.security.people import persons, signing
from appliance.security.vault import box as boxes
from appliance.security.vault import slots
from appliance.security.vault.keys import KEY, derived, unwrap, wrap


@dataclass(frozen=True, kw_only=True)
class Followed:
    """Whose slot is new, and whose is gone."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def hold(home: Home, master: bytes, head: dict[str, Any], first: bytes, seed: bytes) -> str:
    """What `slots.prepared` made, to be kept until the person whose key has this seed is listed.

    Raises:
        ValueError: these are no such values.
    """
    if len(first) != KEY or len(seed) != signing.SEED or set(head) != set(slots.HEAD):
        raise ValueError("no slot of a person")
    held = {"head": head, "first": first.hex(), "public": signing.public_of(seed)}
    return wrap(derived(master, "held-slot"), canonical.encode(held), _bound(home))


def follow(home: Home, master: bytes, held: str = "") -> Followed:
    """Take the slots of removed people away, and enter the `held` one of a person who is listed now.

    Does nothing at a site without people. The last slot that a passphrase opens stays.

    Raises:
        ApplianceError: the list of people was changed by hand. Busy, SealBroken: as slots.py.
        ValueError: `held` was not made by `hold`, or is of a person who is not listed with that key.
    """
    roster = persons.load(home)
    if roster is None:
        return Followed()
    added: tuple[str, ...] = ()
    if held:
        made = canonical.decode(unwrap(derived(master, "held-slot"), held, _bound(home)))
        one = roster.find(made["head"]["name"])
        if one is None or one.public != made["public"]:
            raise ValueError("this person is not listed")
        slots.put(home, master, made["head"], bytes.fromhex(made["first"]))
        added = (one.name,)
    ended = {one.name for one in roster.people if one.removed is not None}
    gone = [slot["name"] for slot in slots.people(home) if slot["name"] in ended]
    for name in gone:
        slots.remove_slot(home, master, name)
    return Followed(added=added, removed=tuple(gone))


def _bound(home: Home) -> dict[str, str]:
    return {"part": "held slot", "vault": boxes.read(home.path)[0].vault}
