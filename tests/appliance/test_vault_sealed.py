"""Sealed files: what comes back, and that nothing altered does."""

from __future__ import annotations

import io
import random
import resource
import sys
from pathlib import Path

import pytest

from appliance.core.sealing import SealBroken
from appliance.security.vault import header as heads
from appliance.security.vault.header import CHUNK, LENGTH
from appliance.security.vault.keys import StoreKeys, store_keys
from appliance.security.vault.sealed import open_sealed, seal

FROZEN = Path(__file__).parents[1] / "frozen"
KEYS = store_keys(bytes(range(32)), vault="ab" * 16, epoch=1, whole=True)
NAME = "models/clinic/model.safetensors"


def _sealed(path: Path, content: bytes, name: str = NAME, keys: StoreKeys = KEYS) -> Path:
    path.unlink(missing_ok=True)
    seal(io.BytesIO(content), path, keys=keys, name=name)
    return path


def _read(path: Path, name: str = NAME, keys: StoreKeys = KEYS) -> bytes:
    with open_sealed(path, keys=keys, name=name) as stream:
        return stream.readall()


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 17])
def test_what_is_sealed_comes_back(tmp_path: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)
    path = _sealed(tmp_path / "x", content)
    assert _read(path) == content
    assert path.stat().st_size == LENGTH + size + 16 * max(1, -(-size // CHUNK))
    assert path.stat().st_mode & 0o077 == 0
    if size > 64:
        assert content[:64] not in path.read_bytes()


def test_random_reading(tmp_path: Path) -> None:
    chance = random.Random(5)
    content = chance.randbytes(3 * CHUNK + 1000)
    with open_sealed(_sealed(tmp_path / "x", content), keys=KEYS, name=NAME) as stream:
        for _ in range(60):
            at, length = chance.randrange(len(content) + 10), chance.choice([0, 1, 100, CHUNK, 2 * CHUNK + 3])
            stream.seek(at)
            assert stream.read(length) == content[at : at + length]
        assert stream.seek(-5, io.SEEK_END) == len(content) - 5
        assert stream.read() == content[-5:]


def test_no_mutant_is_read(tmp_path: Path) -> None:
    _mutants(tmp_path, 105)


@pytest.mark.soak
def test_no_mutant_is_read_at_length(tmp_path: Path) -> None:
    _mutants(tmp_path, 5_000)


def _mutants(tmp_path: Path, count: int) -> None:
    chance = random.Random(1)
    content = chance.randbytes(3 * CHUNK + 50)
    whole = _sealed(tmp_path / "x", content).read_bytes()
    other = _sealed(tmp_path / "y", chance.randbytes(3 * CHUNK + 50)).read_bytes()
    step = CHUNK + 16
    changed = tmp_path / "changed"
    for number in range(count):
        made = bytearray(whole)
        kind = number % 7
        at = chance.randrange(len(whole))
        if kind == 0:
            at = chance.choice(
                [chance.randrange(12), chance.randrange(16, 400), chance.randrange(LENGTH, len(whole))]
            )
            made[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del made[at:]
        elif kind == 2:
            made += chance.randbytes(1 + at % 50)
        elif kind == 3:  # two chunks change places
            a, b = LENGTH, LENGTH + step
            made[a : a + step], made[b : b + step] = made[b : b + step], made[a : a + step]
        elif kind == 4:  # a chunk goes
            del made[LENGTH + step : LENGTH + 2 * step]
        elif kind == 5:  # a chunk of another file
            place = LENGTH + step * chance.randrange(3)
            made[place : place + step] = other[place : place + step]
        else:  # the other file's header, or its body
            made[:LENGTH] = other[:LENGTH]
        if bytes(made) == whole:
            continue
        changed.write_bytes(made)
        with pytest.raises(SealBroken):
            _read(changed)


def test_unused_header_bytes_are_not_content(tmp_path: Path) -> None:
    """The zeros after a header and the second place hold nothing that is read."""
    path = _sealed(tmp_path / "x", b"content")
    content = bytearray(path.read_bytes())
    content[heads.PLACES[0] + heads.ROOM - 1] = 1
    path.write_bytes(content)
    with pytest.raises(SealBroken):
        _read(path)


def test_another_name_store_vault_or_epoch_does_not_open(tmp_path: Path) -> None:
    path = _sealed(tmp_path / "x", b"content")
    for name in ("models/clinic/config.json", "models/clinic2/model.safetensors", "datasets/a/train.jsonl"):
        with pytest.raises(SealBroken):
            _read(path, name=name)
    for keys in (
        store_keys(bytes(32), vault="ab" * 16, epoch=1, whole=True),
        store_keys(bytes(range(32)), vault="cd" * 16, epoch=1, whole=True),
        store_keys(bytes(range(32)), vault="ab" * 16, epoch=2, whole=True),
    ):
        with pytest.raises(SealBroken):
            _read(path, keys=keys)


def test_the_key_of_one_store_opens_no_other(tmp_path: Path) -> None:
    assert len(set(KEYS.stores.values())) == len(KEYS.stores)
    path = _sealed(tmp_path / "x", b"content")
    wrong = StoreKeys(
        vault=KEYS.vault, epoch=1, whole=True, stores={**KEYS.stores, "models": KEYS.stores["datasets"]}
    )
    with pytest.raises(SealBroken):
        _read(path, keys=wrong)


def test_a_target_that_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        seal(io.BytesIO(b"new"), tmp_path / "x", keys=KEYS, name=NAME)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        seal(io.BytesIO(b"new"), tmp_path / "link", keys=KEYS, name=NAME)
    assert not (tmp_path / "elsewhere").exists()


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("ru_maxrss is in KiB on Linux")
    source = tmp_path / "big"
    with source.open("wb") as stream:
        stream.truncate(96 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with source.open("rb", buffering=0) as stream:
        seal(stream, tmp_path / "x", keys=KEYS, name=NAME)  # type: ignore[arg-type]
    buffer, read = bytearray(1 << 20), 0
    with open_sealed(tmp_path / "x", keys=KEYS, name=NAME) as reader:
        while count := reader.readinto(buffer):
            read += count
    assert read == 96 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


def test_the_frozen_file_of_format_1_still_opens() -> None:
    """docs/sealed-format.md: master 00 01 .. 1f, vault abab.., epoch 1."""
    content = _read(FROZEN / "sealed-s1.bin", name="feedback/frozen.json")
    assert content == b'{"answer": "sealed in format S1"}\n'
    assert (FROZEN / "sealed-s1.bin").stat().st_size == LENGTH + len(content) + 16
