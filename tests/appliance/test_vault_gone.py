"""A sealed home whose vault.json was deleted or exchanged: it never looks unsealed, at no door."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import people_support as site
import pytest
from vault_support import WORDS, agent, sealed_home, unlocked

from appliance.core import files, reading, vaulted
from appliance.core.errors import ApplianceError
from appliance.core.home import Home, open_home
from appliance.core.sealing import Locked
from appliance.core.vaulted import VaultGone
from appliance.security import canonical
from appliance.security.passphrase import Cost
from appliance.security.people import mode, persons
from appliance.security.vault import box, slots, unlocking
from tui.cli.entry import run
from tui.session import Session

EVERY_DOOR = """init --site x --single-person|vault status|unlock|lock|people list|data list|model list
job list|audit verify|audit tail|trust card|budget show|key list|bundle import x.clb|vault seal|vault rotate
vault add joe|vault take reports/1.json --to out|serve m|train d --base b|data import x --name y"""


def _known(home: Home, vault: str) -> None:
    mode.write_anchor(home, mode.Anchor(mode=mode.SINGLE, site="Anna", vault=vault))


@pytest.fixture
def single(tmp_path: Path) -> Home:
    """A sealed site of one person, as init leaves it."""
    home, master = sealed_home(tmp_path / "home")
    with unlocked(home, master):
        files.write_private(home.identity, b"{}")
        files.write_json(home.reports / "0001.json", {"a": 1})
    _known(home, vaulted.vault_of(home.path) or "")
    return home


@pytest.fixture
def words(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "words"
    file.write_text(WORDS)
    file.chmod(0o600)
    yield file


def test_every_door_of_a_home_without_its_vault_is_shut(
    single: Home, words: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (single.path / "vault.json").unlink()
    before = _content(single)
    monkeypatch.setenv("CLOISTER_PASSPHRASE_FILE", str(words))
    tried = 0
    for line in EVERY_DOOR.replace("\n", "|").split("|"):
        code = run([*line.split(), "--home", str(single.path), "--json"])
        said = capsys.readouterr()
        assert (code, json.loads(said.out)["error"]["code"]) == (12, "vault-gone"), (line, said)
        assert "Restore vault.json" in json.loads(said.out)["error"]["hint"]
        tried += 1
    assert tried >= 20
    assert _content(single) == before


def _content(home: Home) -> dict[str, bytes]:
    there = [file for file in home.path.rglob("*") if file.is_file() and "cloister.db" not in file.name]
    return {file.relative_to(home.path).as_posix(): file.read_bytes() for file in there}


@pytest.mark.parametrize("left", ["people.json", "files", "both"])
def test_people_json_and_sealed_files_each_say_it(single: Home, left: str) -> None:
    (single.path / "vault.json").unlink()
    if left == "files":
        single.people.unlink()
    if left == "people.json":
        for area in vaulted.AREAS:
            shutil.rmtree(single.path / area, ignore_errors=True)
    for act in (
        lambda: open_home(single.path),
        lambda: files.write_bytes(single.feedback / "a", b"plain words"),
        lambda: reading.read_bytes(single.reports / "0001.json"),
        lambda: reading.open_reading(single.reports / "0001.json"),
        lambda: files.temporary_place(single.path),
        lambda: slots.create(single, "eve", "the passphrase of a thief"),
        lambda: unlocking.status(single),
        lambda: box.read(single.path),
    ):
        with pytest.raises(VaultGone, match="missing"):
            act()
    assert not (single.path / "vault.json").exists()


def test_another_homes_vault_is_refused(single: Home, tmp_path: Path) -> None:
    thief, _ = sealed_home(tmp_path / "thief")
    shutil.copy(thief.path / "vault.json", single.path / "vault.json")
    for act in (
        lambda: open_home(single.path),
        lambda: files.write_bytes(single.feedback / "a", b"words for a thief"),
        lambda: unlocking.unlock(single, "mira", WORDS, allow_swap=True),
    ):
        with pytest.raises(VaultGone, match="another home"):
            act()


def test_who_exchanged_what_names_the_vault_too_meets_files_that_do_not_open(
    single: Home, tmp_path: Path
) -> None:
    thief, master = sealed_home(tmp_path / "thief")
    shutil.copy(thief.path / "vault.json", single.path / "vault.json")
    _known(single, vaulted.vault_of(thief.path) or "")
    for act in (
        lambda: unlocking.unlock(single, "mira", WORDS, allow_swap=True),
        lambda: unlocking.start(single, master),
    ):
        with pytest.raises(VaultGone, match="opens none of its files"):
            act()
    assert unlocking.status(single)["locked"] is True


def test_an_older_vault_than_the_keys_is_refused(single: Home) -> None:
    from appliance.security.vault import rotation

    old = (single.path / "vault.json").read_bytes()
    new = rotation.rotate(single, slots.open_slot(single, "mira", WORDS).master)
    with agent(single, new):
        assert reading.read_bytes(single.reports / "0001.json")
    (single.path / "vault.json").write_bytes(old)
    with pytest.raises(VaultGone, match="change of keys"):
        unlocking.unlock(single, "mira", WORDS, allow_swap=True)


def test_the_people_have_signed_that_their_site_is_sealed(home: Home, tmp_path: Path) -> None:
    """Who can write every file still has not two people's keys: the list says which vault it was."""
    master = slots.create(home, "olga", site.passphrase("olga"))
    people = [site.new(name, role) for name, role in site.ROLE_OF.items()]
    persons.found(home, "St. Anna", people, cost=Cost(), now=site.START)
    assert persons.load(home) is not None and master
    held = json.loads(home.people.read_bytes())
    vault = home.path / "vault.json"
    whole = vault.read_bytes()
    assert held["vault"] == json.loads(whole)["vault"]
    vault.unlink()
    home.people.write_text(json.dumps(held | {"vault": ""}))
    open_home(home.path)  # nothing is sealed in it yet, so no file says it
    with pytest.raises(VaultGone, match="missing"):
        persons.load(home)
    with pytest.raises(VaultGone, match="missing"):  # the door that all commands and the screens go through
        Session(home.path, signer=site.signer("olga"))
    thief, _ = sealed_home(tmp_path / "thief")
    shutil.copy(thief.path / "vault.json", vault)
    with pytest.raises(VaultGone, match="another home"):
        persons.load(home)
    vault.write_bytes(whole)
    assert persons.load(home) is not None
    roster = json.loads(str(site.column(home, "SELECT content FROM rosters")[0]))
    changed = canonical.encode(roster | {"vault": ""}).decode()
    site.sql(home, "UPDATE rosters SET content = ?", changed)
    with pytest.raises(ApplianceError, match="is another one"):
        persons.load(home)


def test_a_home_that_never_was_sealed_needs_nothing(tmp_path: Path) -> None:
    home = open_home(tmp_path / "keys" / "home")  # a folder above with the name of an area is no home
    _known(home, "")
    files.write_bytes(home.feedback / "a", b"words")
    assert reading.read_bytes(home.feedback / "a") == b"words" == (home.feedback / "a").read_bytes()
    assert run(["vault", "status", "--home", str(home.path)]) == 0


def test_the_vault_put_back_opens_again(single: Home) -> None:
    vault = single.path / "vault.json"
    whole = vault.read_bytes()
    vault.unlink()
    with pytest.raises(VaultGone):
        reading.read_bytes(single.reports / "0001.json")
    vault.write_bytes(whole)
    with pytest.raises(Locked):
        reading.read_bytes(single.reports / "0001.json")
