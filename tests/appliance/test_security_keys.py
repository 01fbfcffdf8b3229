from __future__ import annotations

import re
from pathlib import Path

import pytest

from appliance.core.db import reading
from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.home import Home, open_home
from appliance.security import audit, keys


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


def test_a_key_opens_until_it_is_revoked(home: Home) -> None:
    key_id, secret = keys.new_key(home, "ward 3", "mira")
    assert re.fullmatch(r"clo_[0-9a-z]{8}_[0-9A-Za-z]{43}", secret)
    assert keys.check(home, secret) == key_id
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
    assert ring.check(secret) == key_id
    keys.revoke(home, key_id, "mira")
    assert ring.check(secret) is None
    ring.close()


def test_bad_names_and_ids_are_refused(home: Home) -> None:
    for name in ("", "a\nb", "x" * 65):
        with pytest.raises(ConfigWrong):
            keys.new_key(home, name, "mira")
    with pytest.raises(NotFound):
        keys.revoke(home, "nothing", "mira")
