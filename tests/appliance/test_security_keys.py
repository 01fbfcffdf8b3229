from __future__ import annotations

import re
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.core.db import reading
from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.home import Home, open_home
from appliance.security import audit, keys
from appliance.security.keys import Grant

SCOPE: dict[str, Any] = {
    "models": ("lora-0007", "b"),
    "collections": ("policies",),
    "expires": datetime(2130, 1, 1, 12, 30, 5, 7, tzinfo=UTC),
    "requests_per_minute": 60,
    "tokens_per_day": 200_000,
    "open_requests": 4,
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


def test_a_key_opens_until_it_is_revoked(home: Home) -> None:
    key_id, secret = keys.new_key(home, "ward 3", "mira")
    assert re.fullmatch(r"clo_[0-9a-z]{8}_[0-9A-Za-z]{43}", secret)
    assert keys.check(home, secret) == Grant(id=key_id, name="ward 3")
    keys.revoke(home, key_id, "mira")
    keys.revoke(home, key_id, "mira")
    assert keys.check(home, secret) is None
    assert [(key.id, key.name, key.revoked is None) for key in keys.list_keys(home)] == [
        (key_id, "ward 3", False)
    ]
    with reading(home) as link:
        assert [entry["what"] for entry in audit.tail(link, 9)] == ["key.new", "key.revoke"]


def test_the_secret_is_nowhere_on_disk(home: Home) -> None:
    _, secret = keys.new_key(home, "ward 3", "mira")
    body = secret.split("_")[2].encode()
    files = [path for path in home.path.rglob("*") if path.is_file()]
    assert files
    assert all(body not in path.read_bytes() for path in files)


@pytest.mark.parametrize("change", ["", "x", "swap", "id", "é", "prefix"])
def test_a_wrong_secret_opens_nothing(home: Home, change: str) -> None:
    _, secret = keys.new_key(home, "a", "mira")
    other, _ = keys.new_key(home, "b", "mira")
    head, _key_id, body = secret.split("_")
    wrong = {
        "": "",
        "x": secret + "x",
        "swap": secret.swapcase(),
        "id": f"{head}_{other}_{body}",
        "é": secret[:-1] + "é",
        "prefix": secret[:-1],
    }[change]
    assert keys.check(home, wrong) is None


def test_a_ring_sees_what_others_change(home: Home) -> None:
    ring = keys.KeyRing(home)
    assert ring.check("clo_00000000_" + "0" * 43) is None
    key_id, secret = keys.new_key(home, "a", "mira")
    grant = ring.check(secret)
    assert grant is not None and grant.id == key_id
    keys.revoke(home, key_id, "mira")
    assert ring.check(secret) is None
    ring.close()


def test_bad_names_and_ids_are_refused(home: Home) -> None:
    for name in ("", "a\nb", "x" * 65):
        with pytest.raises(ConfigWrong):
            keys.new_key(home, name, "mira")
    with pytest.raises(NotFound):
        keys.revoke(home, "nothing", "mira")


def test_a_key_may_do_what_it_was_made_for(home: Home) -> None:
    key_id, secret = keys.new_key(home, "dms", "mira", **SCOPE)
    assert keys.check(home, secret) == Grant(id=key_id, name="dms", **SCOPE)
    assert keys.list_keys(home)[0].grant == Grant(id=key_id, name="dms", **SCOPE)
    with reading(home) as link:
        (entry,) = audit.tail(link, 1)
    told = SCOPE | {"models": ["lora-0007", "b"], "collections": ["policies"]}
    assert {name: entry[name] for name in told} == told | {"expires": SCOPE["expires"].isoformat()}


def test_a_key_ends_on_the_moment_though_nothing_is_written(home: Home) -> None:
    end = keys.utc_now() + timedelta(days=90)
    key_id, secret = keys.new_key(home, "dms", "mira", expires=end)
    clock = [end - timedelta(microseconds=1)]
    ring = keys.KeyRing(home, clock=lambda: clock[0])
    assert ring.check(secret) is not None
    clock[0] = end
    assert ring.check(secret) is None
    (key,) = keys.list_keys(home)
    assert [key.state(at) for at in (end - timedelta(seconds=1), end)] == ["valid", "expired"]
    keys.revoke(home, key_id, "mira")
    assert keys.list_keys(home)[0].state(end) == "revoked"
    ring.close()


def test_an_end_in_another_zone_is_the_same_moment(home: Home) -> None:
    end = datetime.fromisoformat("2130-01-01T00:00:00+05:00")
    _, secret = keys.new_key(home, "dms", "mira", expires=end)
    grant = keys.check(home, secret)
    assert grant is not None and grant.expires == end


@pytest.mark.parametrize(
    "scope",
    [
        {"models": [""]},
        {"collections": ["a\nb"]},
        {"requests_per_minute": 0},
        {"tokens_per_day": -1},
        {"open_requests": 0},
        {"open_requests": 1 << 53},
        {"expires": datetime(2020, 1, 1, tzinfo=UTC)},
        {"expires": datetime(2130, 1, 1)},  # noqa: DTZ001
    ],
)
def test_a_scope_that_means_nothing_is_refused(home: Home, scope: dict[str, Any]) -> None:
    with pytest.raises(ConfigWrong):
        keys.new_key(home, "dms", "mira", **scope)
    assert keys.list_keys(home) == []


def test_keys_of_before_there_were_limits_may_do_all(home: Home) -> None:
    _, secret = keys.new_key(home, "old", "mira")
    with sqlite3.connect(home.database) as link:
        columns = {row[1]: row[4] for row in link.execute("PRAGMA table_info(api_keys)")}
    assert (columns["models"], columns["expires"]) == ("'[]'", None)
    grant = keys.check(home, secret)
    assert grant is not None and grant.models == () and grant.expires is None
    link.close()


def test_a_check_is_quick_among_many_keys(home: Home) -> None:
    for number in range(30):
        _, secret = keys.new_key(home, f"key {number}", "mira", **SCOPE)
    ring = keys.KeyRing(home)
    assert ring.check(secret) is not None
    times = []
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(100):
            ring.check(secret)
        times.append((time.perf_counter() - began) / 100)
    ring.close()
    assert min(times) < 100e-6  # about 10 microseconds; a busy machine may be slower
