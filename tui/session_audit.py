"""The part of the door (session.py) for the audit log: verify, sign, witness, export. Plain values out."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.core.errors import ConfigWrong, DataRejected, NotFound
from appliance.core.files import replacing
from appliance.core.home import Home
from tui.session_guard import acts, anyone
from tui.site_key import older_keys, site_key, utc_now

if TYPE_CHECKING:
    from appliance.security.log.checkpoint import Checkpoint, LogKey, Verifier
    from tui.session import Session

_LONGEST_KEY = 4096  # bytes of a key file


@acts("audit.verify")
def verify(session: Session) -> dict[str, Any]:
    """The verdict on the log (appliance/security/log/verify.py); damaged, it has `error` as well."""
    from appliance.security.log.verify import verify

    home = session.home
    found = verify(home, [*_known(site_key(home)), *older_keys(home)])
    told = found.as_dict()
    if not found.ok:
        problem = found.error()
        told["error"] = {"code": problem.code, "message": problem.message, "hint": problem.hint}
    return told


@anyone
def verify_file(home: Home | None, path: Path, public: str | None) -> dict[str, Any]:
    """Check an exported file or a checkpoint without the database.

    `public`: the raw Ed25519 key as hex or base64, or a file with it or with PEM; left out, this site's.

    Raises:
        LogDamaged: an entry is not what the signed log holds. DataRejected: no such file, or a wrong
        signature. ConfigWrong: no key to check it with.
    """
    from appliance.security.log import export, witness
    from appliance.security.log.checkpoint import Verifier, origin_of, read

    raw = key_given(public) if public is not None else None
    key = site_key(home) if raw is None and home is not None else None
    if raw is None and key is None:
        raise ConfigWrong("There is no key to check this file with.", "Add --key with the site's public key.")
    note = export.head_note(path)
    if note is not None:
        found = export.verify_export(path, _known(key) if raw is None else raw)
        return {"first": found.first, "last": found.last, **told_of(found.checkpoint)}
    note = witness.read_note(path)
    keys = _known(key) if raw is None else [Verifier(name=origin_of(note), public=raw)]
    return told_of(read(note, keys))


@acts("audit.export")
def checkpoint(session: Session, to: Path | None) -> dict[str, Any]:
    """Sign the log as it is; the note is also written to `to`, which must not exist.

    Raises:
        ConfigWrong: no keys yet, or the file is there. LogDamaged: the log is not what was signed before.
    """
    from appliance.security.log import witness

    signer = _needed(session.home)
    if to is not None and to.exists():
        raise ConfigWrong(f"{to} is there already.", "Choose another file.")
    if to is not None and not to.parent.is_dir():
        raise ConfigWrong(f"{to.parent} is no folder.", "Make it first, or choose another.")
    older = older_keys(session.home)
    made = witness.make(session.home, signer, who=session.who, clock=utc_now, older=older)
    if to is not None:
        with replacing(to) as draft:
            draft.write_bytes(made.note)
    return told_of(made) | {"note": made.note.decode(), "path": None if to is None else str(to)}


@acts("audit.export")
def witness(session: Session, path: Path) -> dict[str, Any]:
    """Take in a checkpoint of this site that came back, alone or in an exported file.

    Raises:
        LogDamaged: the log does not extend it, or an exported entry is another one here. One of a log that
            was set aside is held against what was kept of that.
        DataRejected: it is none that this site signed. ConfigWrong: no keys yet.
    """
    from appliance.security.log import export, witness

    keys = [*_known(_needed(session.home)), *older_keys(session.home)]
    note = export.head_note(path)
    old = _of_older_log(session.home, note or witness.read_note(path))
    if old is not None:
        return old
    if note is not None:
        export.verify_export(path, keys)
    found = witness.add(
        session.home, note or witness.read_note(path), keys, who=session.who, source=path.name
    )
    entries = None
    if note is not None:
        same = export.compare(session.home, path, keys)
        entries = [same.first, same.last]
    return told_of(found) | {"same_entries": entries, "set_aside": None}


@acts("audit.export")
def export(session: Session, path: Path, *, first: int, last: int | None) -> dict[str, Any]:
    """Write entries with their proofs and a new checkpoint to a file that must not exist.

    Raises:
        ConfigWrong: no keys yet, no such entries, or the file is there. LogDamaged: see `checkpoint`.
    """
    from appliance.security.log import export

    made = export.export(
        session.home,
        path,
        _needed(session.home),
        who=session.who,
        clock=utc_now,
        first=first,
        last=last,
        older=older_keys(session.home),
    )
    return {"path": str(path), "first": made.first, "last": made.last, **told_of(made.checkpoint)}


@anyone
def told_of(found: Checkpoint) -> dict[str, Any]:
    """A checkpoint as plain values."""
    from appliance.security.log.checkpoint import fingerprint

    return {
        "origin": found.origin,
        "size": found.size,
        "root": found.root.hex(),
        "time": found.time.isoformat(),
        "fingerprint": fingerprint(found),
    }


def _of_older_log(home: Home, note: bytes) -> dict[str, Any] | None:
    """What a checkpoint of a log that was set aside says of it; None: it is of the log that there is.

    Raises:
        LogDamaged: that log's entries are not those that were signed.
    """
    from appliance.security.log import renewed
    from appliance.security.log.checkpoint import Verifier, origin_of, read
    from appliance.security.trust.rotation import current, older

    held, names = renewed.renewals(home), origin_of(note)
    if not held:
        return None
    mine = current(home)
    keys = [mine.key, *(card.key for card in older(home))]
    for count, old in enumerate(held):
        if names != renewed.origin_after(mine.name, count):
            continue
        found = read(note, [Verifier(name=names, public=bytes.fromhex(one)) for one in keys])
        renewed.compare(home, old.number, found)
        return told_of(found) | {"same_entries": None, "set_aside": old.to_json()}
    return None


def _known(key: LogKey | None) -> list[Verifier]:
    from appliance.security.log.checkpoint import verifier

    return [] if key is None else [verifier(key)]


def _needed(home: Home) -> LogKey:
    key = site_key(home)
    if key is None:
        raise ConfigWrong(
            "This site has no keys to sign its audit log with.", "Make them: cloister trust init NAME"
        )
    return key


@anyone
def key_given(text: str) -> bytes:
    """A public key as people give it: see `verify_file`. Raises NotFound, DataRejected."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    raw = _raw(text)
    if raw is None:
        try:
            with Path(text).open("rb") as stream:
                content = stream.read(_LONGEST_KEY)
        except FileNotFoundError:
            raise NotFound(
                "There is no such key file.", "Give a file, or the key as 64 hex digits."
            ) from None
        except OSError as problem:
            raise DataRejected(f"{text} cannot be read: {problem.strerror}.", "Check the path.") from problem
        raw = _raw(content.decode("ascii", "replace").strip())
        if raw is None and content.startswith(b"-----BEGIN PUBLIC KEY-----"):
            try:
                found = load_pem_public_key(content)
            except ValueError:
                found = None
            raw = found.public_bytes_raw() if isinstance(found, Ed25519PublicKey) else None
    if raw is None:
        raise DataRejected("That is no Ed25519 public key.", "Give 64 hex digits, or a file with the key.")
    return raw


def _raw(text: str) -> bytes | None:
    try:
        found = bytes.fromhex(text) if len(text) == 64 else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None
    return found if len(found) == 32 else None
