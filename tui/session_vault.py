"""The part of the door (session.py) for the vault: unlocking, who may, recovery, new keys. Plain values."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.home import Home
from appliance.core.reading import copy_plain
from appliance.core.sealing import place
from appliance.security import audit
from appliance.security.people import guard
from tui.session_guard import acts, agree, anyone

if TYPE_CHECKING:
    from tui.session import Session

Told = Callable[[int, int], None]


@anyone
def status(session: Session) -> dict[str, Any]:
    """What unlocking.status says."""
    home = session.home
    from appliance.security.vault import unlocking

    return unlocking.status(home)


@anyone
def person(session: Session, asked: str | None) -> str:
    """Whose passphrase is meant: as asked, else the slot of `who`, else the only one.

    Raises:
        NotFound: the home has no vault. ConfigWrong: several people could be meant.
    """
    home, who = session.home, session.who
    from appliance.security.vault import slots

    names = [slot["name"] for slot in slots.people(home) if slot["kind"] == slots.PASSPHRASE]
    if asked or who in names:
        return asked or who
    if len(names) == 1:
        return names[0]
    raise ConfigWrong("Several people can open this site.", "Say who you are with --as NAME.")


@anyone
def unlock(session: Session, name: str, words: str, *, minutes: float, allow_swap: bool) -> None:
    """Unlock the site, or sign in at this terminal where it is unlocked. Both outcomes are audited.

    At a site with people the passphrase is that of the person, whose key signs from here on; who has no slot
    in the vault can sign in once it is unlocked, and who is not listed any more cannot unlock it.

    Raises:
        PassphraseWrong, NotAllowed: it is not the passphrase. Others as vault/unlocking.py.
    """
    from appliance.security.people import mode, persons
    from appliance.security.vault import slots, unlocking
    from tui import session_people

    home = session.home
    single = mode.mode(home) == mode.SINGLE
    known = name in {slot["name"] for slot in slots.people(home)}
    master = None
    try:
        if not single and ((listed := persons.load(home)) is None or listed.find(name) is None):
            raise slots.wrong()  # their slot may still be there: see follow_people
        if single or known or unlocking.status(home)["locked"]:
            mine = unlocking.unlock(home, name, words, minutes=minutes, allow_swap=allow_swap)
            master = mine.master
    except slots.PassphraseWrong:
        _refused(home, name)
        raise
    if not single:
        signer = persons.sign_in(home, name, words, now=persons.utc_now())
        unlocking.sign_in(home, name, signer.seed, master=master)
        session_people.follow_people(session)
    _note(home, name, "vault.unlock", allow_swap=allow_swap)


@anyone
def lock(session: Session) -> bool:
    """Lock the site; False if it was. Raises NotFound: it is not sealed."""
    home, who = session.home, session.who
    from appliance.security.vault import unlocking

    if not unlocking.status(home)["vault"]:
        raise NotFound("This site is not sealed, so there is nothing to lock.", "See: cloister init --help")
    locked = unlocking.lock(home)
    if locked:
        _note(home, who, "vault.lock")
    return locked


@acts("vault.slots")
def add(session: Session, name: str, words: str, *, new: str, new_words: str) -> None:
    """A slot for `new`, opened by `name`."""
    home = session.home
    from appliance.security.vault import slots

    master = _open(home, name, words)
    content = {"way to unlock": f"give {new} one"}
    agree(session, "vault.slots", new, content)
    with _noted(home, name, "vault.add", new) as link:
        guard.spend(link, home, session.who, "vault.slots", new, content=content)
        slots.add_slot(home, master, new, new_words)


@acts("vault.slots")
def remove(session: Session, name: str, words: str, *, old: str) -> None:
    """Take the slot of `old` away."""
    home = session.home
    from appliance.security.vault import slots

    master = _open(home, name, words)
    content = {"way to unlock": f"take that of {old}"}
    agree(session, "vault.slots", old, content)
    with _noted(home, name, "vault.remove", old) as link:
        guard.spend(link, home, session.who, "vault.slots", old, content=content)
        slots.remove_slot(home, master, old)


@anyone
def passphrase(session: Session, name: str, words: str, *, new_words: str) -> None:
    """Another passphrase for `name`."""
    home = session.home
    from appliance.security.vault import slots
    from appliance.security.vault.tries import attempt

    with _noted(home, name, "vault.passphrase", name), attempt(home.path):
        slots.change_passphrase(home, name, words, new_words)


@acts("vault.slots")
def new_recovery(session: Session, name: str, words: str, *, needed: int, shares: int) -> list[str]:
    """New recovery shares, in place of the ones there were; as they are printed."""
    home = session.home
    from appliance.security.vault import box, recovery, slots
    from appliance.security.vault.keys import new_key

    master, key = _open(home, name, words), new_key()
    content = {"recovery shares": f"{needed} of {shares}"}
    agree(session, "vault.slots", "recovery", content)
    made = recovery.split(key, needed=needed, shares=shares, vault=box.read(home.path)[0].vault)
    with _noted(home, name, "vault.recovery", name, needed=needed, shares=shares) as link:
        guard.spend(link, home, session.who, "vault.slots", "recovery", content=content)
        slots.set_recovery(home, master, key)
    return [recovery.to_text(share) for share in made]


@anyone
def recover(session: Session, texts: Sequence[str], *, name: str, new_words: str) -> None:
    """Give the slot `name` another passphrase by recovery shares; what they sign with keeps the old one."""
    home, who = session.home, session.who
    from appliance.security.vault import box, recovery, slots

    shares = [recovery.from_text(text) for text in texts]
    key = recovery.join(shares, vault=box.read(home.path)[0].vault)
    master = slots.open_recovery(home, key)
    with _noted(home, who, "vault.recover", name, shares=sorted(share.number for share in shares)):
        slots.reset_passphrase(home, master, name, new_words)


@acts("vault.rotate")
def rotate(session: Session, name: str, words: str, *, told: Told) -> None:
    """A new master key; see vault/rotation.py."""
    home = session.home
    from appliance.security.vault import rotation

    master = _open(home, name, words)
    _note(home, name, "vault.rotate.begin")
    rotation.rotate(home, master, told=told)
    _note(home, name, "vault.rotate.end")


@acts("vault.rotate")
def seal(session: Session, name: str, words: str, *, told: Told) -> tuple[int, str]:
    """Seal what is plain; the number of files, and what to know of their old blocks, if there are any."""
    home = session.home
    from appliance.security.vault import existing

    master = _open(home, name, words)
    _note(home, name, "vault.seal.begin")
    count = existing.seal_existing(home, master, told=told)
    _note(home, name, "vault.seal.end", files=count)
    return count, existing.REST if count else ""


@acts("record.read")
def take(session: Session, file: Path, target: Path) -> None:
    """Write the plain bytes of the sealed `file` of this home to `target`, which is not overwritten.

    Raises:
        NotFound: there is no such file. ConfigWrong: it is not sealed, or the target is there.
    """
    home, who = session.home, session.who
    source = file if file.is_absolute() or file.exists() else home.path / file
    if not source.is_file():
        raise NotFound(f"There is no file {source}.", "Give its path, as `cloister` prints it.")
    where = place(source)
    if where is None or where.root != home.path:
        raise ConfigWrong(f"{source} is no sealed file of this site.", "Copy it as any other file.")
    if target.exists() or place(target) is not None:
        raise ConfigWrong(f"{target} is there, or in the site's home.", "Choose another name.")
    os.umask(0o077)
    with _noted(home, who, "vault.take", where.name):
        try:
            copy_plain(source, target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def _open(home: Home, name: str, words: str) -> bytes:
    from appliance.security.vault import slots
    from appliance.security.vault.slots import PassphraseWrong
    from appliance.security.vault.tries import attempt

    try:
        with attempt(home.path):
            return slots.open_slot(home, name, words).master
    except PassphraseWrong:
        _refused(home, name)
        raise


def _refused(home: Home, name: str) -> None:
    """Of a name that nobody has only that: it may be a passphrase that was typed in the wrong place."""
    from appliance.security.vault import slots

    known = any(slot["name"] == name for slot in slots.people(home))
    _note(home, name if known else "unknown", "vault.refused")


def _note(home: Home, who: str, what: str, **detail: Any) -> None:
    with transaction(home) as link:
        audit.record(link, who=who, what=what, target="vault", **detail)


@contextmanager
def _noted(home: Home, who: str, what: str, target: str, **detail: Any) -> Iterator[sqlite3.Connection]:
    """The line stands if the change does."""
    with transaction(home) as link:
        audit.record(link, who=who, what=what, target=target, **detail)
        yield link
