"""Exports prove themselves without the database; each spoilt line is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import log_support as support
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core.errors import ApplianceError, ConfigWrong, DataRejected, LogDamaged
from appliance.core.home import Home
from appliance.security.log import export, merkle, verify
from appliance.security.log.checkpoint import fingerprint
from appliance.security.log.export import verify_export

Lines = list[str]
FROZEN = Path(__file__).parents[1] / "frozen" / "audit-export-1.jsonl"


def exported(home: Home, path: Path, **which: int) -> Path:
    export.export(home, path, support.KEY, who="mira", clock=support.clock, **which)
    return path


def test_a_whole_export(home: Home, tmp_path: Path) -> None:
    support.grow(home, 20)
    found = verify_export(exported(home, tmp_path / "log.jsonl"), support.KEY.public)
    assert (found.first, found.last, found.checkpoint.size) == (1, 21, 21)
    assert found.checkpoint.origin == "cloister/st-anna"
    assert (tmp_path / "log.jsonl").stat().st_mode & 0o777 == 0o600
    assert export.compare(home, tmp_path / "log.jsonl", support.KEYS) == found
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(json.loads(lines[-1])["entry"])["what"] == "audit.export", "the last is about itself"
    assert verify.verify(home, support.KEYS).signed == 21


def test_a_file_of_this_format_is_read_for_ever() -> None:
    found = verify_export(FROZEN, support.KEY.public)
    assert (found.first, found.last, found.checkpoint.size) == (1, 7, 7)
    assert fingerprint(found.checkpoint) == "229ddc7f9365d06a"


def test_a_part(home: Home, tmp_path: Path) -> None:
    support.grow(home, 20)
    found = verify_export(exported(home, tmp_path / "part", first=5, last=9), support.KEY.public)
    assert (found.first, found.last, found.checkpoint.size) == (5, 9, 21)
    assert len((tmp_path / "part").read_text().splitlines()) == 6


@pytest.mark.parametrize("which", [{"first": 0}, {"first": 9, "last": 8}, {"last": 99}, {"first": 99}])
def test_entries_that_are_not_there(home: Home, tmp_path: Path, which: dict[str, int]) -> None:
    support.grow(home, 20)
    with pytest.raises(ConfigWrong, match="1 to 20"):
        exported(home, tmp_path / "part", **which)
    assert not (tmp_path / "part").exists()


def test_no_file_is_written_over(home: Home, tmp_path: Path) -> None:
    support.grow(home, 2)
    exported(home, tmp_path / "log")
    with pytest.raises(ConfigWrong, match="already"):
        exported(home, tmp_path / "log")
    with pytest.raises(ConfigWrong, match="no folder"):
        exported(home, tmp_path / "none" / "log")


def replaced(number: int, old: str, new: str) -> Callable[[Lines], None]:
    def spoil(lines: Lines) -> None:
        assert old in lines[number]
        lines[number] = lines[number].replace(old, new, 1)

    return spoil


def proof_of_another(lines: Lines) -> None:
    one, other = json.loads(lines[7]), json.loads(lines[8])
    lines[7] = export._line(one | {"proof": other["proof"]})


def renumbered(lines: Lines) -> None:
    del lines[7]
    for place in range(7, len(lines)):
        lines[place] = export._line(json.loads(lines[place]) | {"seq": place})


SPOILT: list[tuple[Callable[[Lines], None], str]] = [
    (replaced(7, "mira", "joe"), "Entry 7 "),
    (replaced(0, '"last":21', '"last":22'), "Line 1 "),
    (replaced(0, '"last":21', '"last":20'), "too many after 20"),
    (replaced(0, '"first":1', '"first":2'), "should have entry 2 in line 2"),
    (replaced(0, '"first":1', '"first":true'), "Line 1 "),
    (replaced(0, "\\n21\\n", "\\n22\\n"), "wrong"),
    (replaced(0, "cloister/st-anna", "cloister/st-bert"), "not signed"),
    (replaced(0, "export-1", "export-2"), "Line 1 "),
    (replaced(7, '"seq":7', '"seq":7.0'), "Line 8 "),
    (replaced(7, '"seq":7', '"seq":8'), "should have entry 7 in line 8"),
    (replaced(7, '"seq":7,', '"seq":7,"seq":7,'), "Line 8 "),
    (replaced(7, '"seq":7,', '"seq": 7,'), "Line 8 "),
    (replaced(7, '"proof":[', '"proof":["AAAA",'), "Line 8 "),
    (replaced(7, '"proof":[', '"proof":[[],'), "Line 8 "),
    (replaced(7, '"proof":[', '"proof":' + "[" * 200_000), "Line 8 "),
    (proof_of_another, "Entry 7 "),
    (renumbered, "Entry 7 "),
    (lambda lines: lines.pop(7), "should have entry 7 in line 8"),
    (lambda lines: lines.insert(7, lines[7]), "should have entry 8 in line 9"),
    (lambda lines: lines.pop(), "ends before entry 21"),
    (lambda lines: lines.append(lines[-1]), "too many after 21"),
    (lambda lines: lines.append("\n"), "Line 23 "),
    (lambda lines: lines.__setitem__(21, lines[21][:-1]), "Line 22 "),
    (lambda lines: lines.clear(), "Line 1 "),
]


@pytest.mark.parametrize(("spoil", "said"), SPOILT)
def test_what_was_spoilt_is_named(
    home: Home, tmp_path: Path, spoil: Callable[[Lines], None], said: str
) -> None:
    support.grow(home, 20)
    path = exported(home, tmp_path / "log")
    lines = path.read_text().splitlines(keepends=True)
    spoil(lines)
    path.write_text("".join(lines))
    with pytest.raises((LogDamaged, DataRejected), match=said):
        verify_export(path, support.KEY.public)


def test_the_proof_is_what_shows_it(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    support.grow(home, 20)
    path = exported(home, tmp_path / "log")
    path.write_text(path.read_text().replace("mira", "joe"))
    with pytest.raises(LogDamaged, match="Entry 1 "):
        verify_export(path, support.KEY.public)
    monkeypatch.setattr(merkle, "check_inclusion", lambda *_: True)
    assert verify_export(path, support.KEY.public).last == 21


def test_another_key_is_a_stranger(home: Home, tmp_path: Path) -> None:
    support.grow(home, 2)
    path = exported(home, tmp_path / "log")
    with pytest.raises(DataRejected, match="not signed"):
        verify_export(path, Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    with pytest.raises(DataRejected, match="cannot be read"):
        verify_export(tmp_path / "none", support.KEY.public)


def test_an_export_names_the_entry_that_was_rewritten_since(home: Home, tmp_path: Path) -> None:
    support.grow(home, 20)
    path = exported(home, tmp_path / "log")
    with support.tampering(home) as link:
        entries = support.entries_of(link)
        entries[12] = entries[12].replace("mira", "joe")
        support.write(link, entries, clever=True)
    with pytest.raises(LogDamaged, match="Entry 13 was changed here"):
        export.compare(home, path, support.KEYS)
    with support.tampering(home) as link:
        support.write(link, entries[:18], clever=True)
    with pytest.raises(LogDamaged, match="Entry 13 was changed"):
        export.compare(home, path, support.KEYS)


def test_a_damaged_log_is_not_exported(home: Home, tmp_path: Path) -> None:
    support.grow(home, 20)
    with support.tampering(home) as link:
        link.execute("UPDATE audit SET entry = 'x' WHERE seq = 13")
    with pytest.raises(ApplianceError, match="entry 13"):
        exported(home, tmp_path / "log")
    assert list(tmp_path.glob("*log*")) == []
