"""The endpoint obeys a key only as the audit log says that it was made, and never one that it says ended."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import people_support as site
import pytest
from test_log_renewal import cut, fill, repair
from test_security_keys import SCOPE

from appliance.core.db import transaction
from appliance.core.home import Home
from appliance.security import audit, key_log, keys

SECRET = "clo_aaaaaaaa_" + "0" * 43
INSERT = "INSERT INTO api_keys (id, name, sha256, created) VALUES ('aaaaaaaa', 'x', ?, '2026-01-01')"
HASH = keys._digest(SECRET)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("models", "[]"),
        ("collections", '["staff"]'),
        ("expires", None),
        ("requests_per_minute", None),
        ("tokens_per_day", 10**9),
        ("open_requests", 99),
        ("name", "another"),
        ("models", "no list"),
    ],
)
def test_a_row_that_was_edited_opens_nothing_and_as_it_was_it_opens_again(
    home: Home, column: str, value: Any
) -> None:
    _, secret = keys.new_key(home, "dms", "mira", **SCOPE)
    with closing(keys.KeyRing(home)) as ring:
        before = ring.check(secret)
        (old,) = site.column(home, f"SELECT {column} FROM api_keys")  # noqa: S608
        site.sql(home, f"UPDATE api_keys SET {column} = ?", value)  # noqa: S608
        assert before is not None and ring.check(secret) is None
        assert [key.state() for key in keys.list_keys(home)] == ["altered"]
        site.sql(home, f"UPDATE api_keys SET {column} = ?", old)  # noqa: S608
        assert ring.check(secret) == before


def test_a_key_that_nobody_made_opens_nothing(home: Home) -> None:
    keys.new_key(home, "dms", "mira")
    with closing(keys.KeyRing(home)) as ring:
        site.sql(home, INSERT, HASH)
        assert ring.check(SECRET) is None
    made, _ = keys.new_key(home, "ward", "mira")
    site.sql(home, "DELETE FROM api_keys WHERE id = 'aaaaaaaa'")
    site.sql(home, "UPDATE api_keys SET sha256 = ?, id = 'aaaaaaaa' WHERE id = ?", HASH, made)
    assert keys.check(home, SECRET) is None
    site.sql(home, "UPDATE api_keys SET id = ?  WHERE id = 'aaaaaaaa'", made)
    assert keys.check(home, SECRET.replace("aaaaaaaa", made)) is None, "another secret under a known id"


def test_a_revoked_key_stays_so_whatever_its_row_says(home: Home) -> None:
    key_id, secret = keys.new_key(home, "dms", "mira")
    with closing(keys.KeyRing(home)) as ring:
        assert ring.check(secret) is not None
        site.sql(home, "UPDATE api_keys SET revoked = '2026'")
        keys.revoke(home, key_id, "mira")  # what the row says alone does not count
        site.sql(home, "UPDATE api_keys SET revoked = NULL")
        assert ring.check(secret) is None
    assert keys.check(home, secret) is None
    assert [key.state() for key in keys.list_keys(home)] == ["altered"]
    site.sql(home, "UPDATE api_keys SET created = '2030'")
    assert keys.check(home, secret) is None


def test_an_entry_of_an_older_version_binds_what_it_holds(home: Home) -> None:
    site.sql(home, INSERT, HASH)
    with transaction(home) as link:
        audit.record(link, who="mira", what="key.new", target="aaaaaaaa", name="x", models=[], collections=[])
    assert keys.check(home, SECRET) is not None
    site.sql(home, "UPDATE api_keys SET collections = '[\"staff\"]'")
    assert keys.check(home, SECRET) is None


def test_keys_outlive_a_log_that_was_set_aside_as_far_as_it_was_intact(home: Home) -> None:
    _, secret = keys.new_key(home, "dms", "mira")
    ended, gone = keys.new_key(home, "gone", "mira")
    keys.revoke(home, ended, "mira")
    with closing(keys.KeyRing(home)) as ring:
        assert ring.check(secret) is not None
        fill(home)
        cut(home)
        repair(home)
        assert ring.check(secret) is not None
        site.sql(home, "UPDATE api_keys SET revoked = NULL, created = '2020-01-01'")
        site.sql(home, INSERT, HASH)
        assert ring.check(gone) is None and ring.check(SECRET) is None
        assert ring.check(secret) is not None


def test_a_row_is_judged_again_only_when_something_changed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = keys.new_key(home, "dms", "mira")
    judged: list[str] = []
    whole = key_log.KeyLog.made
    monkeypatch.setattr(key_log.KeyLog, "made", lambda log, row: judged.append(row["id"]) or whole(log, row))
    with closing(keys.KeyRing(home)) as ring:
        for number in range(5):
            assert ring.check(secret) is not None
            with transaction(home) as link:
                audit.record(link, who="m", what="test", target=json.dumps(number))
    assert len(judged) == 1
