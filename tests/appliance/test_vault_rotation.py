"""A new master key, and sealing what was plain: complete, resumable after kill -9, nothing lost."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from vault_support import CANARY, WORDS, keys_of, sealed_home, unlocked

from appliance.core import files, reading
from appliance.core.errors import Busy, ConfigWrong
from appliance.core.home import Home, open_home
from appliance.core.sealing import SealBroken
from appliance.core.vaulted import VaultGone
from appliance.security.vault import box, existing, rotation, slots, unlocking
from appliance.security.vault import header as heads
from appliance.security.vault.keys import store_keys
from appliance.security.vault.sealed import open_sealed
from appliance.security.vault.slots import PassphraseWrong

OTHER = "nine quiet lanterns burn"
CONTENT = {f"feedback/{number}.json": f"{CANARY} {number}".encode() * number for number in range(8)}
CONTENT |= {
    name: f"{CANARY} {name}".encode() * 9
    for name in ("keys/identity.json", "tls/server.key", "bundles/ab12/.signed", "bundles/ab12/model/x.gguf")
}
STAYS = {"tls/ca.pem": b"a certificate", "bundles/.lock": b"", "jobs/events.jsonl": b"{}\n"}


def test_a_header_that_only_says_the_next_epoch_costs_no_file(tmp_path: Path) -> None:
    """Whoever can write the disk would otherwise have the rotation clear the header that opens it."""
    home, old = sealed_home(tmp_path / "home")
    with unlocked(home, old):
        _write(home)
    for name in CONTENT:
        with (home.path / name).open("r+b") as stream:
            head = heads.read_headers(stream.read(heads.LENGTH))[0]
            assert head is not None
            stream.seek(heads.PLACES[1])
            stream.write(heads.encode(replace(head, epoch=2, key="00" * 60)))
    with unlocked(home, rotation.rotate(home, old)):
        _check(home)


def test_a_new_master_reaches_everyone_and_the_old_one_opens_nothing(tmp_path: Path) -> None:
    home, old = sealed_home(tmp_path / "home")
    slots.add_slot(home, old, "joe", OTHER)
    slots.set_recovery(home, old, b"r" * 32)
    before = keys_of(home, old)
    with unlocked(home, old):
        _write(home)
    bodies = {name: (home.path / name).read_bytes()[4096:] for name in CONTENT}
    seen: list[tuple[int, int]] = []
    new = rotation.rotate(home, old, told=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (24, 24)
    assert new != old
    assert slots.open_slot(home, "mira", WORDS).master == new
    assert slots.open_slot(home, "joe", OTHER).master == new
    assert slots.open_recovery(home, b"r" * 32) == new
    with unlocked(home, new):
        _check(home)
    for name in CONTENT:
        assert (home.path / name).read_bytes()[4096:] == bodies[name]  # only headers were written
        with pytest.raises(SealBroken):
            open_sealed(home.path / name, keys=before, name=name)
        with pytest.raises(SealBroken):  # nor with the new number on the old key
            keys = store_keys(old, vault=before.vault, epoch=2, whole=True)
            open_sealed(home.path / name, keys=keys, name=name)
    for use in (rotation.rotate, lambda home, key: slots.add_slot(home, key, "eve", OTHER)):
        with pytest.raises(SealBroken):
            use(home, old)


def test_keys_do_not_change_under_who_reads(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "home")
    with unlocked(home, master) as vault, pytest.raises(Busy):
        from appliance.core import sealing

        sealing.unmount(home.path)  # rotate forgets this process's own; another's it cannot
        rotation.rotate(home, master)
        assert vault


def test_a_home_with_files_is_sealed_and_plain_files_are_refused_then(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    _write(home)
    files.write_json(home.jobs / "spec.json", {"text": CANARY})
    for name, content in STAYS.items():
        (home.path / name).write_bytes(content)
    for draft in ("jobs/0001/work", "datasets/.0001.draft", "documents/a", "bundles/.quarantine-7"):
        (home.path / draft).mkdir(parents=True)
        (home.path / draft / "draft-1.db").write_text(CANARY)
    master = slots.create(home, "mira", WORDS)
    with unlocked(home, master):
        _check(home)  # readable while it goes on
    assert existing.seal_existing(home, master) == 13
    assert existing.seal_existing(home, master) == 0
    assert box.read(home.path)[0].epoch == 2
    there = [file for file in home.path.rglob("*") if file.is_file()]
    assert CANARY.encode() not in b"".join(file.read_bytes() for file in there)
    assert {name: (home.path / name).read_bytes() for name in STAYS} == STAYS
    with unlocked(home, master):
        _check(home)
        (home.feedback / "0.json").write_bytes(b"put there by somebody")
        with pytest.raises(SealBroken):
            reading.read_bytes(home.feedback / "0.json")
    with pytest.raises(SealBroken, match="is plain"):  # nor is it sealed as if it were ours
        existing.seal_existing(home, master)
    assert (home.feedback / "0.json").read_bytes() == b"put there by somebody"


def test_the_vault_json_of_before_the_sealing_opens_nothing(tmp_path: Path) -> None:
    """It says that plain files count, and its slots hold the same master: planted ones would be read."""
    home = open_home(tmp_path / "home")
    _write(home)
    master = slots.create(home, "mira", WORDS)
    with unlocked(home, master):
        files.write_bytes(home.feedback / "early.json", b"sealed before the home was sealed whole")
    vault, early = home.path / "vault.json", home.feedback / "early.json"
    old, copy = vault.read_bytes(), early.read_bytes()
    existing.seal_existing(home, master)
    vault.write_bytes(old)
    assert not box.read(home.path)[0].whole and slots.open_slot(home, "mira", WORDS).master == master
    for put_back in (b"", copy):
        if put_back:
            early.write_bytes(put_back)
        (home.feedback / "0.json").write_bytes(b"put there by somebody")
        with pytest.raises(VaultGone, match="from before everything was sealed"):
            unlocking.unlock(home, "mira", WORDS, allow_swap=True)
        assert unlocking.status(home)["locked"] is True
    with unlocked(home, master), pytest.raises(SealBroken):  # below the agent, too
        reading.read_bytes(home.feedback / "1.json")


@pytest.mark.parametrize("again", ["seal", "rotate"])
def test_a_sealing_that_was_killed_at_its_end_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    home = open_home(tmp_path / "home")
    _write(home)
    master = slots.create(home, "mira", WORDS)
    with monkeypatch.context() as patch:
        patch.setattr(rotation, "add_header", _killed)
        with pytest.raises(KeyboardInterrupt):
            existing.seal_existing(home, master)
    assert box.read(home.path)[0].stage == "adding"
    with unlocked(home, master):
        files.write_bytes(home.feedback / "0.json", CONTENT["feedback/0.json"])
        _check(home)
    if again == "rotate":
        before, master = master, rotation.rotate(home, master)
        assert master != before
    existing.seal_existing(home, master)
    found = box.read(home.path)[0]
    assert (found.stage, found.whole, found.epoch) == ("", True, 4 if again == "rotate" else 2)
    with unlocked(home, master):
        _check(home)


def test_a_sealing_does_not_end_a_change_of_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, master = sealed_home(tmp_path / "home")
    with unlocked(home, master):
        _write(home)
    with monkeypatch.context() as patch:
        patch.setattr(rotation, "add_header", _killed)
        with pytest.raises(KeyboardInterrupt):
            rotation.rotate(home, master)
    with pytest.raises(ConfigWrong, match="not finished"):
        existing.seal_existing(home, master)
    with unlocked(home, rotation.rotate(home, master)):
        _check(home)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("what", ["rotate", "seal", "write"])
def test_killed_at_any_moment_nothing_is_lost(tmp_path: Path, what: str) -> None:
    _kills(tmp_path, what, 13)


@pytest.mark.soak
@pytest.mark.parametrize("what", ["rotate", "seal", "write"])
def test_killed_at_any_moment_nothing_is_lost_at_length(tmp_path: Path, what: str) -> None:
    _kills(tmp_path, what, 334)


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from vault_support import unlocked
from appliance.core import files
from appliance.core.home import Home
from appliance.security.vault import box, existing, rotation
home, what, key = Home(path=Path(sys.argv[1])), sys.argv[2], bytes.fromhex(sys.argv[3])
print("on", flush=True)
if what == "write":
    with unlocked(home, key):
        number = 0
        while True:
            number += 1
            files.write_bytes(home.feedback / "0.json", b"%d " % number * 200000)
elif what == "seal":
    existing.seal_existing(home, key)
else:
    while True:
        key = rotation.rotate(home, key)
        if not sys.stdout.write(key.hex() + "\\n") or sys.stdout.flush():
            pass
"""


def _kills(tmp_path: Path, what: str, count: int) -> None:
    chance = random.Random(3)
    home = open_home(tmp_path / "home")
    _write(home)
    _fast = _cheap_slots()
    master = slots.create(home, "mira", WORDS)
    if what != "seal":
        existing.seal_existing(home, master)
    plain = box.read(home.path)
    for _ in range(count):
        if what == "seal":  # from the start again
            for name, content in CONTENT.items():
                (home.path / name).write_bytes(content)
            box.write(home.path, plain[0], master)
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(home.path), what, master.hex(), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(chance.random() * (0.15 if what == "seal" else 0.1))
        child.send_signal(signal.SIGKILL)
        child.stdout.read()
        child.stdout.close()
        child.wait()
        master = slots.open_slot(home, "mira", WORDS).master
        with unlocked(home, master):
            if what == "write":
                words = reading.read_bytes(home.feedback / "0.json").split()
                assert len(set(words)) == 1, "half of one, half of another"
                assert len(words) in (0, 200000) or words[0].startswith(b"CANARY")
                continue
            _check(home)
        if what == "seal":
            existing.seal_existing(home, master)
            with unlocked(home, master):
                _check(home)
    if what == "rotate":
        last = rotation.rotate(home, master)
        assert slots.open_slot(home, "mira", WORDS).master == last
        with unlocked(home, last):
            _check(home)
        with pytest.raises(PassphraseWrong):
            slots.open_slot(home, "mira", OTHER)
    _fast()


def _cheap_slots():  # type: ignore[no-untyped-def]
    """Argon2id is not what is tested here, and a thousand of them take half an hour."""
    from appliance.security import passphrase

    real, known = passphrase.stretch, {}

    def remembered(words: str, *, salt: bytes, cost: passphrase.Cost) -> bytes:
        if (words, salt) not in known:
            known[words, salt] = real(words, salt=salt, cost=cost)
        return known[words, salt]

    passphrase.stretch = remembered

    def back() -> None:
        passphrase.stretch = real

    return back


def _write(home: Home) -> None:
    for name, content in CONTENT.items():
        (home.path / name).parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(home.path / name, content)


def _check(home: Home) -> None:
    for name, content in CONTENT.items():
        assert reading.read_bytes(home.path / name) == content
