"""New keys for a site, of the next epoch, and proof of which keys were its own before.

`keys/rotations.json`: {v, rotations: [{from, to, old, new}]}: the card before, the card after, and the
signatures of both keys under `cloister/b1/rotation` || 0x00 || {from, to}, the two keys in hex. What the
newest key has not signed counts for nothing, so nobody can put in a key that "was the site's once". The
keys before stay in `keys/identity-EPOCH.json` to open bundles that are still on their way, unless they were
stolen. The new keys lie in `keys/identity.next.json` until the database knows them; `finish` ends what was
cut off.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from appliance.core.db import reading, transaction
from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.files import sync, write_bytes, write_private
from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.security import audit, canonical
from appliance.security.people import guard
from appliance.security.trust.identity import (
    Card,
    Identity,
    identity_of,
    new_identity,
    public,
    read_card,
    verify,
)

RIGHT, ROTATED = "trust.rotate", "identity.rotate"
SIGNED_ROTATION = b"cloister/b1/rotation\0"


def current(home: Home) -> Identity:
    """The site's keys now.

    Raises:
        NotFound: it has none. ConfigWrong: they are damaged.
    """
    finish(home)
    try:
        return identity_of(read_bytes(home.identity))
    except OSError as problem:
        raise NotFound(
            "This site has no keys of its own yet.", "Make them: cloister trust init NAME --role site"
        ) from problem


def rotation_content(held: Identity, because: str, *, stolen: bool) -> dict[str, str]:
    """What two people agree to: which keys end, why, and whether the old ones go on opening bundles."""
    return {
        "name": held.name,
        "ends": held.key,
        "next epoch": str(held.key_epoch + 1),
        "because": because,
        "old keys": "are deleted" if stolen else "go on opening what was sealed for them",
    }


def rotate(home: Home, *, who: str, because: str, stolen: bool = False) -> Identity:
    """Give the site new keys of the next epoch, once two people have agreed to `rotation_content`.

    Raises:
        NotFound: the site has no keys yet. ConfigWrong: no reason.
        NotAllowed: `who` may not. NeedsApproval: two people have not agreed.
    """
    if not 3 <= len(because) <= 200 or not because.isprintable():
        raise ConfigWrong("New keys need their reason: 3 to 200 characters.", "Add --because.")
    held = current(home)
    made = new_identity(held.name, held.role, key_epoch=held.key_epoch + 1)
    write_private(_next(home), made.secret())
    try:
        with transaction(home) as link:
            guard.spend(
                link,
                home,
                who,
                RIGHT,
                held.name,
                content=rotation_content(held, because, stolen=stolen),
                used_for=f"key epoch {made.key_epoch}",
            )
            audit.record(
                link,
                who=who,
                what=ROTATED,
                target=held.name,
                key=made.key,
                key_epoch=made.key_epoch,
                before=held.key,
                because=because,
                stolen=stolen,
            )
    except BaseException:
        _next(home).unlink(missing_ok=True)
        raise
    finish(home)
    return made


def finish(home: Home) -> None:
    """End a rotation that a crash cut off: the new keys count from the moment the database knows them."""
    if not _next(home).exists() or not home.database.exists():
        return
    made, held = identity_of(read_bytes(_next(home))), identity_of(read_bytes(home.identity))
    told = _told(home, made.key)
    if told is None:
        _next(home).unlink(missing_ok=True)
        return
    kept = home.identity.with_name(f"identity-{held.key_epoch}.json")
    if held.key != made.key:
        if not told["stolen"]:
            write_private(kept, held.secret())
        rotations = [one for one in _stored(home) if one.get("from") != _card(held)]
        write_bytes(
            home.identity.with_name("rotations.json"),
            canonical.encode({"v": 1, "rotations": [*rotations, _signed(held, made)]}),
        )
    write_private(home.identity, made.secret())  # not renamed: a sealed file is bound to its place
    _next(home).unlink(missing_ok=True)
    if told["stolen"]:
        for old in home.identity.parent.glob("identity-*.json"):
            old.unlink()
    sync(home.identity.parent)


def older(home: Home) -> list[Card]:
    """The cards that were the site's own before, newest first, as far as its keys now bear them out."""
    if not home.identity.exists():
        return []
    wanted, found = identity_of(read_bytes(home.identity)).key, list[Card]()
    for one in reversed(_stored(home)):
        try:
            before, after = (read_card(canonical.encode(one[side])) for side in ("from", "to"))
            content = _content(before.key, after.key)
            signed = all(
                verify(card.key, bytes.fromhex(one[side]), content)
                for card, side in ((before, "old"), (after, "new"))
            )
        except (KeyError, TypeError, ValueError):
            continue
        if signed and after.key == wanted:
            found.append(before)
            wanted = before.key
    return found


def opening(home: Home) -> list[Identity]:
    """The identities that open bundles for this site: its own, then those before it that were kept."""
    held = [current(home)]
    for card in older(home):
        path = home.identity.with_name(f"identity-{card.key_epoch}.json")
        if path.is_file() and (one := identity_of(read_bytes(path))).key == card.key:
            held.append(one)
    return held


def _signed(held: Identity, made: Identity) -> dict[str, Any]:
    content = _content(held.key, made.key)
    return {
        "from": _card(held),
        "to": _card(made),
        "old": held.sign(content).hex(),
        "new": made.sign(content).hex(),
    }


def _content(before: str, after: str) -> bytes:
    return SIGNED_ROTATION + canonical.encode({"from": before, "to": after})


def _card(identity: Identity) -> Any:
    return canonical.decode(public(identity).content)


def _stored(home: Home) -> list[dict[str, Any]]:
    try:
        held = canonical.decode(read_bytes(home.identity.with_name("rotations.json")))
        return [one for one in held["rotations"] if isinstance(one, dict)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _told(home: Home, key: str) -> dict[str, Any] | None:
    """The audit line of the rotation to `key`."""
    with reading(home) as link:
        rows = link.execute(
            "SELECT entry FROM audit WHERE instr(entry, ?) ORDER BY seq DESC", (f'"what":"{ROTATED}"',)
        ).fetchall()
    entries: list[dict[str, Any]] = [json.loads(row["entry"]) for row in rows]
    return next((one for one in entries if one["what"] == ROTATED and one["key"] == key), None)


def _next(home: Home) -> Path:
    return home.identity.with_name("identity.next.json")
