"""cloister key: what is asked for is what the key may do, and lists fit a terminal."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.core.db import transaction
from appliance.core.home import Home, open_home
from appliance.models import registry
from appliance.models.registry import Model
from appliance.security import keys, usage
from tui.cli.entry import run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    home = open_home(tmp_path / "home")
    monkeypatch.setenv("CLOISTER_HOME", str(home.path))
    for name in ("lora-0007", "clinic-letters-of-2029"):
        model = Model(name=name, kind="adapter", path=tmp_path, sha256=name, size=1)
        registry.add(home, model, who="tests")
    (home.documents / "policies").mkdir()
    (home.documents / "policies" / "index.db").touch()
    return home


def key(words: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """The JSON of `cloister key ...`."""
    capsys.readouterr()
    assert run(["key", *words.split(), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_secret_is_told_once(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["key", "new", "--for", "dms", "--json"]) == 0
    out, err = capsys.readouterr()
    secret = json.loads(out)["key"]
    assert secret.startswith("clo_") and out.count(secret) == 1 and secret not in err
    assert "Keep it now" in err
    assert run(["key", "new", "--for", "dms"]) == 0
    out, err = capsys.readouterr()
    assert sum(line.startswith("clo_") for line in out.splitlines()) == 1 and "clo_" not in err


FULL = "--models lora-0007 --collections policies --rate 60/m --tokens 200000/d --open 4 --expires 90d"


def test_a_key_gets_what_was_asked_for(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    made = key(f"new --for dms {FULL}", capsys)
    grant = keys.check(home, made["key"])
    assert grant is not None
    assert (grant.id, grant.name, grant.models, grant.collections) == (
        made["id"],
        "dms",
        ("lora-0007",),
        ("policies",),
    )
    assert (grant.requests_per_minute, grant.tokens_per_day, grant.open_requests) == (60, 200_000, 4)
    assert grant.expires is not None
    assert abs(grant.expires - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=5)
    assert made["expires"] == grant.expires.isoformat()


def test_a_plain_key_ends_in_90_days_unless_never_is_said(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = keys.check(home, key("new --for dms", capsys)["key"])
    forever = keys.check(home, key("new --for dms --expires never", capsys)["key"])
    assert plain is not None and forever is not None
    assert plain.expires is not None and forever.expires is None
    assert plain.models == plain.collections == ()
    assert (plain.requests_per_minute, plain.tokens_per_day, plain.open_requests) == (None, None, None)


def test_the_secret_is_shown_once_with_what_it_may_do(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["key", "new", "--for", "dms", *FULL.split(), "--rate", "1000/h"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("clo_") and "only its hash" in lines[1]
    for words in (
        "models       lora-0007",
        "collections  policies",
        "16 a minute, 4 at once",
        "200,000 a day",
    ):
        assert any(words in line for line in lines)
    secret = lines[0].split("_")[2]
    for words in (["list"], ["list", "--json"], ["show", lines[0].split("_")[1]]):
        assert run(["key", *words]) == 0
    assert secret not in capsys.readouterr().out


def test_several_models_may_be_named_in_both_ways(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["lora-0007", "clinic-letters-of-2029"]
    assert key(f"new --for a --models {','.join(both)}", capsys)["models"] == both
    assert key(f"new --for a --models {both[0]} --models {both[1]}", capsys)["models"] == both


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--models lora-0008", 3, "There is no model named lora-0008."),
        ("--models lora-0007,", 2, "--models has an empty name."),
        ("--models=", 2, "--models has an empty name."),
        ("--collections ,", 2, "--collections has an empty name."),
        ("--rate 1/h", 2, "less than one request a minute"),
        ("--rate 60/x", 2, "'60/x' is not a rate."),
        ("--collections nosuch", 3, "There is no collection nosuch."),
        ("--tokens 0", 2, "'0' is not a number of tokens a day."),
        ("--expires yesterday", 2, "'yesterday' is no time to come."),
        ("--expires 2020-01-01", 2, "not in the future"),
        ("--open 0", 2, "0 is not in the range"),
    ],
)
def test_what_cannot_be_is_refused_and_makes_no_key(
    home: Home, words: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["key", "new", "--for", "dms", *words.split()]) == code
    first, second = capsys.readouterr().err.splitlines()
    assert said in first and second.startswith("try: ")
    assert keys.list_keys(home) == []


def use(home: Home, key_id: str, days_ago: int, *numbers: int) -> None:
    day = usage.day_of(datetime.now(UTC) - timedelta(days=days_ago))
    with transaction(home) as link:
        usage.add(link, {(key_id, day): (numbers[0], numbers[1], numbers[2])})


def test_the_list_fits_80_columns_whatever_is_in_it(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["key", "list"]) == 0
    assert "Make one: cloister key new --for NAME" in capsys.readouterr().out
    both = "clinic-letters-of-2029,lora-0007"
    key("new --for dms", capsys)
    wide = f"new --for {'w' * 64} --models {both} --rate 999999999/m --tokens 999999999999 --open 999999999"
    last = key(wide, capsys)
    use(home, last["id"], 0, 3, 123_000, 456)
    use(home, last["id"], 1, 3, 5, 5)
    gone = key("new --for scanner --models lora-0007 --rate 60/m --tokens 200k/d --open 4", capsys)
    keys.revoke(home, gone["id"], "tests")
    with monkeypatch.context() as then:
        then.setattr(keys, "utc_now", lambda: datetime(2025, 12, 31, tzinfo=UTC))
        keys.new_key(home, "ended", "tests", expires=datetime(2026, 1, 1, tzinfo=UTC))
    assert run(["key", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["id", "for", "models", "limits", "today", "expires", "state"]
    assert lines[2].split()[1:5] == ["dms", "all", "none", "0"]
    assert (
        " 999M/m 999G/d 999M at once  123k " in lines[3]
        and "ww.. " in lines[3]
        and ".." in lines[3].split()[2]
    )
    assert " 60/m 200k/d 4 at once " in lines[4] and lines[4].endswith("revoked")
    assert lines[5].endswith("2026-01-01  expired")
    told = key("list", capsys)["keys"]
    assert [entry["state"] for entry in told] == ["valid", "valid", "revoked", "expired"]
    assert [entry["used_today"] for entry in told] == [0, 123_456, 0, 0]
    assert {"id", "name", "created", "revoked"} <= told[0].keys()


def test_short_names_are_whole(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    key("new --for dms --models clinic-letters-of-2029 --rate 60/m --tokens 200k/d", capsys)
    assert run(["key", "list"]) == 0
    assert "dms  clinic-letters-of-2029  60/m 200k/d" in capsys.readouterr().out


def test_show_tells_the_use_of_the_last_30_days(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    made = key("new --for dms --tokens 1000", capsys)
    for days_ago in (0, 2, 29, 30):
        use(home, made["id"], days_ago, 1, 2000 + days_ago, 500)
    told = key(f"show {made['id']}", capsys)
    assert [day["prompt_tokens"] for day in told["usage"]] == [2000, 2002, 2029]
    assert told["state"] == "valid" and told["tokens_per_day"] == 1000
    assert run(["key", "show", made["id"]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Key {made['id']} for dms, made ") and lines[0].endswith(": valid")
    assert lines[-3].split() == [told["usage"][0]["day"], "1", "2,000", "500", "250%"]
    other = key("new --for other", capsys)
    assert run(["key", "show", other["id"]]) == 0
    assert "Not used in the last 30 days." in capsys.readouterr().out
    assert run(["key", "show", "nothing"]) == 3
    assert "There is no key nothing." in capsys.readouterr().err


def test_revoke_ends_it(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    made = key("new --for dms", capsys)
    assert key(f"revoke {made['id']}", capsys) == {"id": made["id"], "revoked": True}
    assert keys.check(home, made["key"]) is None


def test_help_teaches_with_an_example(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["key", "new", "--help"]) == 0
    told = capsys.readouterr().out
    places = [told.index(panel) for panel in ("What it may use", "How much", "How long")]
    assert places == sorted(places) and "--rate 60/m" in told and "90d" in told and "never" in told
    assert run(["key"]) == 2 and "show" in capsys.readouterr().out


def test_a_key_is_found_by_whom_it_is_for_where_that_is_one(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    made = key("new --for dms --rate 60 --collections policies", capsys)
    told = key("show dms", capsys)
    assert told["id"] == made["id"] and told["requests_per_minute"] == 60
    assert run(["key", "list"]) == 0
    assert f"{made['id']} may search the documents of policies" in capsys.readouterr().out
    key("new --for dms", capsys)
    assert run(["key", "show", "dms"]) == 2
    assert "2 keys are for dms" in capsys.readouterr().err


def test_keys_that_chat_has_used_up_are_not_listed(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    made = [keys.new_key(home, keys.OWN_NAME, "tests")[0] for _ in range(2)]
    keys.revoke(home, made[0], "tests")
    assert run(["key", "list"]) == 0
    out = capsys.readouterr().out
    assert made[0] not in out and made[1] in out
    assert len(key("list", capsys)["keys"]) == 2


def test_a_new_key_says_how_it_is_used(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["key", "new", "--for", "dms"]) == 0
    assert "Authorization: Bearer" in capsys.readouterr().out
