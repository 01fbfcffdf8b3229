"""API keys of the endpoint: `clo_<id>_<secret>`, shown once, kept only as SHA-256.

The secret is 32 random bytes, so a slow hash would add nothing. A key or a revocation made by
another process counts from the next request on.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from contextlib import closing
from dataclasses import dataclass

from appliance.core.db import connect, reading, transaction
from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.events import now
from appliance.core.home import Home
from appliance.security import audit

_ALPHABET = string.digits + string.ascii_letters
_FORM = re.compile(r"clo_([0-9a-z]{8})_([0-9A-Za-z]{43})")
_NOBODY = "0" * 64


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key as lists show it; the secret is nowhere."""

    id: str
    name: str
    created: str
    revoked: str | None


def new_key(home: Home, name: str, who: str) -> tuple[str, str]:
    """Make a key for `name` and return its id and the whole key, which cannot be shown again.

    Raises:
        ConfigWrong: the name is empty, long or not printable.
    """
    if not 0 < len(name) <= 64 or not name.isprintable():
        raise ConfigWrong("The name of a key has 1 to 64 printable characters.", "Say who will use it.")
    key_id = "".join(secrets.choice(_ALPHABET[:36]) for _ in range(8))
    secret = f"clo_{key_id}_{_base62(secrets.token_bytes(32))}"
    with transaction(home) as link:
        link.execute(
            "INSERT INTO api_keys (id, name, sha256, created) VALUES (?, ?, ?, ?)",
            (key_id, name, _digest(secret), now()),
        )
        audit.record(link, who=who, what="key.new", target=key_id, name=name)
    return key_id, secret


def list_keys(home: Home) -> list[Key]:
    """All keys ever made, oldest first."""
    with reading(home) as link:
        rows = link.execute("SELECT id, name, created, revoked FROM api_keys ORDER BY created, id")
        return [Key(**dict(row)) for row in rows]


def revoke(home: Home, key_id: str, who: str) -> None:
    """End a key; ending it again changes nothing.

    Raises:
        NotFound: there is no such key.
    """
    with transaction(home) as link:
        row = link.execute("SELECT revoked FROM api_keys WHERE id = ?", (key_id,)).fetchone()
        if row is None:
            raise NotFound(f"There is no key {key_id}.", "See `cloister key list`.")
        if row["revoked"] is None:
            link.execute("UPDATE api_keys SET revoked = ? WHERE id = ?", (now(), key_id))
            audit.record(link, who=who, what="key.revoke", target=key_id)


def check(home: Home, secret: str) -> str | None:
    """The id of the live key that `secret` is, or None."""
    with closing(KeyRing(home)) as ring:
        return ring.check(secret)


class KeyRing:
    """The live keys, read again whenever the database has changed."""

    def __init__(self, home: Home) -> None:
        self._link = connect(home)
        self._seen = -1
        self._digests: dict[str, str] = {}

    def check(self, secret: str) -> str | None:
        """The id of the live key that `secret` is, or None. About 10 microseconds."""
        version = self._link.execute("PRAGMA data_version").fetchone()[0]
        if version != self._seen:
            rows = self._link.execute("SELECT id, sha256 FROM api_keys WHERE revoked IS NULL").fetchall()
            self._digests = {row["id"]: row["sha256"] for row in rows}
            self._seen = version
        form = _FORM.fullmatch(secret)
        key_id = form[1] if form else ""
        same = hmac.compare_digest(_digest(secret), self._digests.get(key_id, _NOBODY))
        return key_id if same else None

    def close(self) -> None:
        """Close the connection to the database."""
        self._link.close()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _base62(content: bytes) -> str:
    """43 digits hold 256 bits: 62 ** 43 > 2 ** 256."""
    number, digits = int.from_bytes(content, "big"), ""
    for _ in range(43):
        number, digit = divmod(number, 62)
        digits += _ALPHABET[digit]
    return digits
