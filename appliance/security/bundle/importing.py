"""Brings a bundle into the site: all of it, or nothing.

Files are written into a quarantine folder on the same disk, each synced and hashed; then a row
"staged" is entered, the folder is renamed to the hash of its manifest, and one transaction makes the
row "live", raises the signer's number and writes the audit line. In a sealed home the files are sealed as
they come, under the names that they will have. `sweep` at start-up removes whatever
did not get that far; the bundle can then be imported again. One import runs at a time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from appliance.core.db import reading, transaction
from appliance.core.errors import BundleRefused, Busy
from appliance.core.events import now
from appliance.core.files import need_room, sync, telling_full
from appliance.core.home import Home
from appliance.core.sealing import place
from appliance.security import audit
from appliance.security.bundle.reading import Opened, Reader, Take, look
from appliance.security.bundle.refusals import refused
from appliance.security.people import guard
from appliance.security.trust import clock, store
from appliance.security.trust.identity import Identity
from appliance.security.trust.trust import Trust

SIGNED = ".signed"
"""Beside the files: signer, signature and manifest as they came, to be verified again at any time."""

RIGHT = "bundle.import"

_QUARANTINE = ".quarantine-"
_SLACK = 16 << 20  # bytes, for the database and the folders themselves


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A bundle that is in. `fresh`: it came in just now; else it was, and nothing was made of it yet."""

    folder: Path
    opened: Opened
    fresh: bool


def import_bundle(
    home: Home,
    path: Path,
    *,
    identity: Identity,
    trust: Trust | None = None,
    kinds: Collection[str] | None = None,
    audit_time: clock.AuditTime | None = None,
    who: str,
) -> Imported:
    """Verify the bundle file `path` and bring it in.

    `trust`: by default what the site's database says. A bundle that is in already but of which nothing
    was made (a crash) is returned as it is.

    Raises:
        BundleRefused: with the exact reason; nothing has changed. NoRoom: too little disk.
        Busy: another import runs. NotAllowed: `who` may not import. Locked: the home is sealed and locked.
    """
    with reading(home) as link:  # before anything is written; what counts is asked where it goes live
        guard.spend(link, home, who, RIGHT, path.name)
    with _alone(home):
        judge = trust or store.trust(home, audit_time=audit_time)
        try:
            reader = Reader(path, identity, judge, kinds=kinds)
        except BundleRefused as problem:
            opened = _unfinished(home, path, identity, judge) if problem.reason == "replayed" else None
            if opened is None:
                raise
            return Imported(folder=home.bundles / opened.digest, opened=opened, fresh=False)
        with reader:
            opened = reader.opened
            need_room(home.bundles, opened.manifest.size + _SLACK)
            draft = home.bundles / f"{_QUARANTINE}{secrets.token_hex(8)}"
            try:
                with telling_full(home.bundles):
                    _receive(home, reader, draft)
                    _publish(home, opened, draft, who=who)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
        return Imported(folder=home.bundles / opened.digest, opened=opened, fresh=True)


def entered(home: Home, digest: str, what: str, *, who: str) -> None:
    """Note that something was made of a bundle (`what` is its name), so that it is not offered again.

    Raises:
        NotAllowed: `who` may not import.
    """
    with transaction(home) as link:
        guard.spend(link, home, who, RIGHT, digest)
        link.execute("UPDATE bundles_in SET entered = ? WHERE digest = ?", (what, digest))
        audit.record(link, who=who, what="bundle.enter", target=digest, name=what)


def sweep(home: Home, *, who: str = "system") -> list[str]:
    """Remove what an import that was cut off has left; the names of what was removed.

    Does nothing while an import runs.
    """
    try:
        with _alone(home):
            return _sweep(home, who)
    except Busy:
        return []


def left_behind(home: Home) -> bool:
    """Whether there is anything for `sweep`; one look, no lock."""
    if any(home.bundles.glob(f"{_QUARANTINE}*")):
        return True
    if not home.database.exists():
        return False
    with reading(home) as link:
        return link.execute("SELECT 1 FROM bundles_in WHERE state = 'staged'").fetchone() is not None


def _sweep(home: Home, who: str) -> list[str]:
    gone = []
    for folder in home.bundles.glob(f"{_QUARANTINE}*"):
        shutil.rmtree(folder, ignore_errors=True)
        gone.append(folder.name)
    with reading(home) as link:
        rows = link.execute("SELECT digest FROM bundles_in WHERE state = 'staged'").fetchall()
    for row in rows:
        shutil.rmtree(home.bundles / row["digest"], ignore_errors=True)
        sync(home.bundles)
        with transaction(home) as link:
            link.execute("DELETE FROM bundles_in WHERE digest = ? AND state = 'staged'", (row["digest"],))
            audit.record(link, who=who, what="bundle.sweep", target=row["digest"])
        gone.append(row["digest"])
    return gone


def _unfinished(home: Home, path: Path, identity: Identity, trust: Trust) -> Opened | None:
    """The bundle, where it is the very one that came in and nothing was made of it yet."""
    opened = look(path, identity, replace(trust, floors={}))
    with reading(home) as link:
        row = link.execute(
            "SELECT 1 FROM bundles_in WHERE digest = ? AND state = 'live' AND entered IS NULL",
            (opened.digest,),
        ).fetchone()
    return opened if row else None


def _receive(home: Home, reader: Reader, draft: Path) -> None:
    """Write all files into the folder `draft`, synced."""
    target = home.bundles / reader.opened.digest
    where = place(target / SIGNED)
    draft.mkdir(mode=0o700)
    top = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:

        @contextmanager
        def into(path: str) -> Iterator[Take]:
            handle = _new_file(top, path)
            try:
                if where is None:
                    yield lambda part: _whole(handle, part)
                    os.fsync(handle)
                else:
                    name = (target / path).relative_to(where.root).as_posix()
                    with where.sealer.writing(handle, name) as take:
                        yield take
            finally:
                os.close(handle)

        reader.files(lambda entry: into(entry.path))
        with into(SIGNED) as take:
            take(memoryview(reader.opened.signed))
        for folder in sorted((one for one in draft.rglob("*") if one.is_dir()), reverse=True):
            sync(folder)
        os.fsync(top)
    finally:
        os.close(top)


def _publish(home: Home, opened: Opened, draft: Path, *, who: str) -> None:
    manifest, target = opened.manifest, home.bundles / opened.digest
    with transaction(home) as link:
        link.execute(
            "INSERT INTO bundles_in (digest, signer, kind, line, seq, key_epoch, created, expires, state,"
            " taken, who) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'staged', ?, ?)",
            (
                opened.digest,
                opened.key,
                manifest.kind,
                manifest.line,
                manifest.seq,
                manifest.key_epoch,
                manifest.created,
                manifest.expires,
                now(),
                who,
            ),
        )
    try:
        draft.rename(target)
        sync(home.bundles)
        with transaction(home) as link:
            _go_live(link, home, opened, who)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        with transaction(home) as link:
            link.execute("DELETE FROM bundles_in WHERE digest = ? AND state = 'staged'", (opened.digest,))
        raise


def _go_live(link: sqlite3.Connection, home: Home, opened: Opened, who: str) -> None:
    manifest = opened.manifest
    guard.spend(link, home, who, RIGHT, opened.digest)
    taken = store.advance(
        link, signer=opened.key, key_epoch=manifest.key_epoch, line=manifest.line, seq=manifest.seq
    )
    if not taken:
        raise refused("replayed", seq=manifest.seq, floor=manifest.seq)
    clock.vouched(link, manifest.created)
    link.execute("UPDATE bundles_in SET state = 'live' WHERE digest = ?", (opened.digest,))
    audit.record(
        link,
        who=who,
        what="bundle.import",
        target=opened.digest,
        kind=manifest.kind,
        name=manifest.facts.name,
        signer=opened.key,
        signer_name=opened.signer.name if opened.signer else "",
        line=manifest.line,
        seq=manifest.seq,
        key_epoch=manifest.key_epoch,
        created=manifest.created,
        files=len(manifest.files),
        size=manifest.size,
        checkpoint=manifest.facts.checkpoint,
    )


def _new_file(top: int, path: str) -> int:
    """A new file below the folder `top`, made through handles: no link on the way is followed."""
    *folders, last = path.split("/")
    at = os.dup(top)
    try:
        for name in folders:
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=at)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = below
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(last, flags, 0o600, dir_fd=at)
    finally:
        os.close(at)


def _whole(handle: int, part: memoryview) -> None:
    while part:
        part = part[os.write(handle, part) :]


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Hold the lock of imports; the system lets it go when the process ends, however it ends.

    Raises:
        Busy: another process holds it.
    """
    handle = os.open(home.bundles / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            if problem.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise Busy("Another bundle is being imported.", "Try again when it is done.") from problem
        yield
    finally:
        os.close(handle)
