"""cloister unlock, lock and vault, as a person types them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.core import files, reading
from appliance.core.db import reading as looking
from appliance.core.home import Home
from appliance.core.sealing import Locked
from appliance.security import audit
from appliance.security.vault import slots, unlocking
from tui.cli.entry import run

WORDS, OTHER = "seven grey herons wade", "nine quiet lanterns burn"
Say = Callable[..., dict[str, Any]]


@pytest.fixture
def say(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Say]:
    slots.create(home, "mira", WORDS)
    (tmp_path / "words").write_text(f"{WORDS}\n")
    (tmp_path / "other").write_text(OTHER)

    def ask(*words: str, code: int = 0, words_of: str | None = "words") -> dict[str, Any]:
        more = ["--passphrase-file", str(tmp_path / words_of)] if words_of else []
        assert run([*words, *more, "--home", str(home.path), "--json"]) == code
        said = capsys.readouterr()
        assert WORDS not in said.err + said.out
        told: dict[str, Any] = json.loads(said.out)
        return told

    yield ask
    unlocking.lock(home)


def _audited(home: Home) -> list[str]:
    with looking(home) as link:
        return [f"{entry['who']} {entry['what']}" for entry in audit.tail(link, 50)]


def test_unlock_take_lock(home: Home, say: Say, tmp_path: Path) -> None:
    assert say("vault", "status", words_of=None)["locked"] is True
    error = say("unlock", code=12, words_of="other")["error"]
    assert error["code"] == "passphrase-wrong"
    assert say("unlock", "--as", "nobody", code=12)["error"] == error
    assert say("unlock", "--allow-swap")["name"] == "mira"
    files.write_bytes(home.reports / "0001.html", b"<p>report")
    say("vault", "take", "reports/0001.html", "--to", str(tmp_path / "out.html"), words_of=None)
    assert (tmp_path / "out.html").read_bytes() == b"<p>report"
    say("vault", "take", "reports/0001.html", "--to", str(tmp_path / "out.html"), words_of=None, code=2)
    say("vault", "take", str(tmp_path / "words"), "--to", str(tmp_path / "b"), words_of=None, code=2)
    assert say("vault", "status", words_of=None)["agent"]["limit"] == 600
    assert say("lock", words_of=None) == {"locked": True, "was_unlocked": True}
    with pytest.raises(Locked):
        reading.read_bytes(home.reports / "0001.html")
    who = _audited(home)
    assert who[:3] == ["mira vault.refused", "unknown vault.refused", "mira vault.unlock"]
    assert [line.split()[1] for line in who[3:]] == ["vault.take", "vault.lock"]


def test_people_recovery_and_new_keys(home: Home, say: Say, tmp_path: Path) -> None:
    new = ["--new-passphrase-file", str(tmp_path / "other")]
    say("vault", "add", "joe", *new)
    assert say("unlock", "--allow-swap", "--as", "joe", words_of="other")["name"] == "joe"
    files.write_bytes(home.feedback / "a", b"x")
    assert say("vault", "rotate", "--as", "mira")["rotated"] is True
    assert say("vault", "status", words_of=None) | {"swap": 0} == {
        **{"vault": True, "locked": True, "whole": True, "epoch": 2, "rotating": False, "swap": 0},
        "slots": [{"name": "mira", "kind": "passphrase"}, {"name": "joe", "kind": "passphrase"}],
    }
    shares = say("vault", "recovery", "--as", "mira")["shares"]
    (tmp_path / "shares").write_text("\n".join(shares[1:]))
    say("vault", "recover", "mira", "--shares-file", str(tmp_path / "shares"), *new, words_of=None)
    say("unlock", "--allow-swap", "--as", "mira", words_of="other")
    assert reading.read_bytes(home.feedback / "a") == b"x"
    say("vault", "remove", "joe", "--as", "mira", words_of="other")
    say("vault", "remove", "mira", "--as", "mira", words_of="other", code=2)
    say("unlock", "--as", "joe", words_of="other", code=12)


def test_sealing_what_was_plain(home: Home, say: Say) -> None:
    (home.feedback / "a").write_bytes(b"plain words")
    (home.path / "vault.json").unlink()
    slots.create(home, "mira", WORDS)
    assert say("vault", "status", words_of=None)["whole"] is False
    told = say("vault", "seal")
    assert told["sealed"] == 1
    assert "blocks" in told["rest"]
    assert b"plain" not in (home.feedback / "a").read_bytes()


def test_no_terminal_and_no_file_is_told(home: Home, say: Say) -> None:
    assert "passphrase-file" in say("unlock", words_of=None, code=2)["error"]["hint"]
