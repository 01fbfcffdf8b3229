"""API keys of the endpoint: `clo_<id>_<secret>`, shown once, kept only as SHA-256.

The secret is 32 random bytes, so a slow hash would add nothing. A key or a revocation made by
another process counts from the next request on. What a key may do is fixed when it is made: to widen
it, revoke it and make another. A row that the audit log does not bear out opens nothing (key_log.py).
Limits are applied by the endpoint (serve/admission.py).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import string
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from appliance.core.db import connect, reading, transaction
from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.events import now
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.key_log import ENDED, MADE, KeyLog
from appliance.security.people import guard
from appliance.security.trust.clock import floor

OWN_NAME = "this terminal"  # of the keys that `chat` makes for itself and revokes at its end
OWN_LIFE = timedelta(days=1)
_ALPHABET = string.digits + string.ascii_letters
_FORM = re.compile(r"clo_([0-9a-z]{8})_([0-9A-Za-z]{43})")
_NOBODY = "0" * 64
_GRANT = "id, name, models, collections, expires, requests_per_minute, tokens_per_day, open_requests"


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What one key may do. No `models`: all of them; no `collections`: none. A limit of None is no limit.

    `tokens_per_day` counts prompt and completion tokens of a UTC day; from `expires` on the key is dead.
    """

    id: str
    name: str
    models: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()
    expires: datetime | None = None
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    open_requests: int | None = None

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires is not None and now >= self.expires


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key as lists show it; the secret is nowhere. `logged`: the audit log tells of it, and just so."""

    grant: Grant
    created: str
    revoked: str | None
    logged: bool = True

    @property
    def id(self) -> str:
        """The part of the key that is no secret."""
        return self.grant.id

    @property
    def name(self) -> str:
        """Who or what uses it."""
        return self.grant.name

    def state(self, now: datetime | None = None) -> str:
        """valid, expired, revoked, or altered: a row that nobody made by the log, and that opens nothing."""
        if self.revoked:
            return "revoked"
        if not self.logged:
            return "altered"
        return "expired" if self.grant.expired(now or utc_now()) else "valid"


def utc_now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)


def new_key(
    home: Home,
    name: str,
    who: str,
    *,
    models: Sequence[str] = (),
    collections: Sequence[str] = (),
    expires: datetime | None = None,
    requests_per_minute: int | None = None,
    tokens_per_day: int | None = None,
    open_requests: int | None = None,
) -> tuple[str, str]:
    """Make a key for `name` and return its id and the whole key, which cannot be shown again.

    What it may do is as `Grant` says. That the models exist is the caller's to check.

    Raises:
        ConfigWrong: a name is empty, long or not printable, a limit is below 1, or `expires` is over.
    """
    if not _printable(name):
        raise ConfigWrong("The name of a key has 1 to 64 printable characters.", "Say who will use it.")
    if not all(_printable(part, 200) for part in (*models, *collections)):
        raise ConfigWrong("A key names models and collections by their names.", "Leave empty ones out.")
    limits = (requests_per_minute, tokens_per_day, open_requests)
    if not all(limit is None or 0 < limit < 1 << 53 for limit in limits):
        raise ConfigWrong("A limit of a key must be 1 or more.", "Leave it out for none.")
    if expires is not None and (expires.tzinfo is None or expires <= utc_now()):
        raise ConfigWrong("A key must end in the future.", "Such as in 90d.")
    key_id = "".join(secrets.choice(_ALPHABET[:36]) for _ in range(8))
    secret = f"clo_{key_id}_{_base62(secrets.token_bytes(32))}"
    named = {"models": list(dict.fromkeys(models)), "collections": list(dict.fromkeys(collections))}
    digest = _digest(secret)
    rest = {
        "expires": expires.astimezone(UTC).isoformat() if expires else None,
        "requests_per_minute": requests_per_minute,
        "tokens_per_day": tokens_per_day,
        "open_requests": open_requests,
    }
    with transaction(home) as link:
        guard.spend(link, home, who, action_for(name, expires), key_id)
        link.execute(
            "INSERT INTO api_keys (id, name, sha256, created, models, collections, expires,"
            " requests_per_minute, tokens_per_day, open_requests) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (key_id, name, digest, now(), *map(json.dumps, named.values()), *rest.values()),
        )
        told = {"name": name, "sha256": digest, **named, **rest}
        audit.record(link, who=who, what=MADE, target=key_id, **told)
    return key_id, secret


def action_for(name: str, expires: datetime | None) -> str:
    """What making such a key is: one of the terminal's own ends within a day, else it is as any other."""
    own = name == OWN_NAME and expires is not None and expires <= utc_now() + OWN_LIFE
    return "key.own" if own else "key.new"


def list_keys(home: Home) -> list[Key]:
    """All keys ever made, oldest first."""
    with reading(home) as link:
        query = f"SELECT {_GRANT}, created, revoked, sha256 FROM api_keys ORDER BY created, id"  # noqa: S608
        rows, log = link.execute(query).fetchall(), KeyLog(home)
        log.read(link)
        return [
            Key(
                created=row["created"],
                revoked=row["revoked"],
                grant=_grant(*row[:-3]) if log.made(row) else Grant(id=row["id"], name=row["name"]),
                logged=log.made(row) and (row["revoked"] is not None or not log.ended(row["id"])),
            )
            for row in rows
        ]


def revoke(home: Home, key_id: str, who: str) -> None:
    """End a key; ending it again changes nothing.

    Raises:
        NotFound: there is no such key.
    """
    with transaction(home) as link:
        row = link.execute("SELECT name, revoked FROM api_keys WHERE id = ?", (key_id,)).fetchone()
        if row is None:
            raise NotFound(f"There is no key {key_id}.", "See `cloister key list`.")
        guard.spend(link, home, who, "key.own" if row["name"] == OWN_NAME else "key.revoke", key_id)
        log = KeyLog(home)
        log.read(link)
        if row["revoked"] is None or not log.ended(key_id):
            link.execute("UPDATE api_keys SET revoked = ? WHERE id = ?", (now(), key_id))
            audit.record(link, who=who, what=ENDED, target=key_id)


def check(home: Home, secret: str) -> Grant | None:
    """What the live key that `secret` is may do, or None."""
    with closing(KeyRing(home)) as ring:
        return ring.check(secret)


class KeyRing:
    """The live keys that the audit log bears out, read again whenever the database has changed.

    `clock` gives the time in UTC; one that was set back revives no key that had expired by what the site
    knew of the time when this was made (security/trust/clock.py).
    """

    def __init__(self, home: Home, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._link = connect(home)
        self._clock, self._floor = clock, datetime.fromtimestamp(floor(self._link), UTC)
        self._seen, self._log = -1, KeyLog(home)
        self._live: dict[str, tuple[str, Grant]] = {}
        self._known: dict[tuple[object, ...], tuple[str, Grant] | None] = {}

    def check(self, secret: str) -> Grant | None:
        """What the live key that `secret` is may do; None if it is wrong, revoked or expired.

        About 10 microseconds.
        """
        version = self._link.execute("PRAGMA data_version").fetchone()[0]
        if version != self._seen:
            self._load()
            self._seen = version
        form = _FORM.fullmatch(secret)
        digest, grant = self._live.get(form[1] if form else "", (_NOBODY, None))
        same = hmac.compare_digest(_digest(secret), digest)
        return (
            grant
            if same and grant is not None and not grant.expired(max(self._clock(), self._floor))
            else None
        )

    def _load(self) -> None:
        """Rows first: the entry of each is then in the log. A row is judged again only when it, or what the
        log says of keys, has changed."""
        query = f"SELECT sha256, {_GRANT} FROM api_keys WHERE revoked IS NULL"  # noqa: S608
        rows = self._link.execute(query).fetchall()
        if self._log.read(self._link):
            self._known = {}
        known = {}
        for row in rows:
            content = tuple(row)
            if content in self._known:
                known[content] = self._known[content]
            else:
                good = self._log.made(row) and not self._log.ended(row["id"])
                known[content] = (row["sha256"], _grant(*row[1:])) if good else None
        self._known = known
        self._live = {held[1].id: held for held in known.values() if held is not None}

    def close(self) -> None:
        """Close the connection to the database."""
        self._link.close()


def _grant(key_id: str, name: str, models: str, collections: str, expires: str | None, *limits: int) -> Grant:
    """The grant of one row, its columns in the order of `_GRANT`."""
    per_minute, per_day, at_once = limits
    return Grant(
        id=key_id,
        name=name,
        models=tuple(json.loads(models)),
        collections=tuple(json.loads(collections)),
        expires=datetime.fromisoformat(expires) if expires else None,
        requests_per_minute=per_minute,
        tokens_per_day=per_day,
        open_requests=at_once,
    )


def _printable(name: str, longest: int = 64) -> bool:
    return 0 < len(name) <= longest and name.isprintable()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _base62(content: bytes) -> str:
    """43 digits hold 256 bits: 62 ** 43 > 2 ** 256."""
    number, digits = int.from_bytes(content, "big"), ""
    for _ in range(43):
        number, digit = divmod(number, 62)
        digits += _ALPHABET[digit]
    return digits
