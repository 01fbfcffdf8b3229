"""Bundles: what goes in comes out, and every reason to refuse one is told exactly."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundle_support as b
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke

from appliance.core.errors import BundleRefused
from appliance.security.bundle import header as headers
from appliance.security.bundle import wrap
from appliance.security.bundle.format import CHUNK, HEAD, SUITES, TAG
from appliance.security.bundle.manifest import Entry
from appliance.security.bundle.reading import Reader, look, verify
from appliance.security.bundle.writing import bytes_source, file_source


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "x.clb"


@pytest.mark.parametrize("suite", SUITES)
def test_what_goes_in_comes_out_for_each_receiver(out: Path, suite: str) -> None:
    written = b.bundle(out, to=(b.EDGE, b.OTHER), suite=suite)
    assert written.size == out.stat().st_size
    for one in (b.EDGE, b.OTHER):
        opened = verify(out, one, b.trust())
        assert opened.manifest == written.manifest and opened.digest == written.digest
        assert (opened.signer.name, opened.suite, opened.recipients) == ("centre", suite, 2)  # type: ignore[union-attr]
    assert look(out, b.EDGE, None).signer is None, "nobody was asked about trust"


def test_sizes_around_a_chunk(out: Path) -> None:
    """The last chunk may be full; none is empty; files need not end where chunks do."""
    head = HEAD + len(b.manifests.encode(b.bundle(out, b.contents(bytes(CHUNK))).manifest))
    chance = random.Random(7)
    for size in (0, 1, CHUNK - head - 1, CHUNK - head, CHUNK - head + 1, 2 * CHUNK - head, 2 * CHUNK + 5):
        parts = [chance.randbytes(size), b"", chance.randbytes(3)][: 1 if size == 2 * CHUNK - head else 3]
        b.bundle(out, b.contents(*parts))
        got: dict[str, bytearray] = {}

        @b_context
        def sink(entry: Entry, got: dict[str, bytearray] = got) -> Any:
            got[entry.path] = bytearray()
            yield got[entry.path].extend

        with Reader(out, b.EDGE, b.trust()) as reader:
            reader.files(sink)
        assert [bytes(one) for one in got.values()] == parts


def b_context(function: Callable[..., Any]) -> Callable[..., Any]:
    from contextlib import contextmanager

    return contextmanager(function)


def test_the_chunks_are_stream_as_the_page_says(out: Path) -> None:
    """A second hand seals the same bytes; the product reads them."""
    assert b.reason(b.forged(out, files=bytes(3 * CHUNK))) == ""


def test_the_disk_takes_a_bundle_while_it_is_written(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told of all bytes in turn but the last few, so that little is left for the fsync at the end."""
    told: list[tuple[int, int]] = []
    real = os.posix_fadvise

    def heard(handle: int, at: int, count: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED and os.fstat(handle).st_size == at + count
        told.append((at, at + count))
        real(handle, at, count, advice)

    monkeypatch.setattr(os, "posix_fadvise", heard)
    written = b.bundle(out, b.contents(bytes(40 * CHUNK)))
    ends = [0, *(end for _, end in told)]
    assert [at for at, _ in told] == ends[:-1]
    assert 0 < written.size - ends[-1] < 18 * CHUNK and b.reason(out) == ""


# --- one test for each reason


def test_no_bundle(out: Path, tmp_path: Path) -> None:
    out.write_bytes(b"PK\3\4 something else")
    assert b.reason(out) == "no-bundle"
    assert b.reason(tmp_path) == "no-file" and b.reason(tmp_path / "none") == "no-file"
    os.mkfifo(tmp_path / "pipe")
    assert b.reason(tmp_path / "pipe") == "no-file"


def test_newer_format(out: Path) -> None:
    b.bundle(out)
    content = out.read_bytes()
    out.write_bytes(content.replace(b"CLOISTER-B1", b"CLOISTER-B2", 1))
    assert b.reason(out) == "newer-format"
    out.write_bytes(content.replace(b'"v":1}', b'"v":2}', 1))
    assert b.reason(out) == "newer-format"
    assert b.reason(b.forged(out, spoil=lambda m: m.update(v=2))) == "newer-format"


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'{"recip', b'{ "reci'), (b"x25519+", b"x25520+"), (b'"kid":"', b'"kid":" '), (b'"v":1}', b'"v":0}')],
)
def test_damaged_header(out: Path, old: bytes, new: bytes) -> None:
    b.bundle(out)
    content = out.read_bytes()
    assert old in content
    out.write_bytes(content.replace(old, new, 1))
    assert b.reason(out) == "damaged-header"


def test_a_header_longer_than_allowed_is_not_read(out: Path) -> None:
    out.write_bytes(b.MAGIC + (1 << 31).to_bytes(4, "big") + bytes(100))
    assert b.reason(out) == "damaged-header"


def test_truncated(out: Path) -> None:
    b.bundle(out, b.contents(os.urandom(3 * CHUNK)))
    content = out.read_bytes()
    begin = b.front(content)
    for end in (14, begin - 40, begin - 1, begin, begin + TAG):
        out.write_bytes(content[:end])
        assert b.reason(out) == "truncated", end
    for end in (begin + CHUNK + TAG, begin + 2 * (CHUNK + TAG), len(content) - 1, begin + CHUNK + TAG + 9):
        out.write_bytes(content[:end])
        assert b.reason(out) == "truncated", end


def test_altered(out: Path) -> None:
    b.bundle(out, b.contents(os.urandom(2 * CHUNK)))
    content = bytearray(out.read_bytes())
    for place in (b.front(content) - 1, b.front(content) + 5, len(content) - 3):  # MAC, first and last chunk
        content[place] ^= 1
        out.write_bytes(content)
        assert b.reason(out) == "altered"
        content[place] ^= 1
    for place in (content.index(b'"enc":"') + 7, content.index(b'"wrapped":"') + 11):
        old = content[place]
        content[place] = ord("0") if old != ord("0") else ord("1")
        out.write_bytes(content)
        assert b.reason(out) == "altered"
        content[place] = old
    out.write_bytes(content)
    assert b.reason(out) == ""


def test_chunks_cannot_be_moved_repeated_left_out_or_taken_from_another(out: Path, tmp_path: Path) -> None:
    b.bundle(out, b.contents(os.urandom(4 * CHUNK)))
    b.bundle(tmp_path / "other", b.contents(os.urandom(4 * CHUNK)), seq=2)
    content, other = out.read_bytes(), (tmp_path / "other").read_bytes()
    spans, begin = b.chunk_spans(content), b.front(content)
    chunks = [content[first:last] for first, last in spans]
    second = [other[first:last] for first, last in b.chunk_spans(other)]
    for wrong in (
        [chunks[0], chunks[2], chunks[1], *chunks[3:]],
        [chunks[0], chunks[1], chunks[1], *chunks[2:]],
        [*chunks[:2], *chunks[3:]],
        [chunks[0], second[1], *chunks[2:]],
        second,
    ):
        out.write_bytes(content[:begin] + b"".join(wrong))
        assert b.reason(out) in ("altered", "trailing", "truncated")
    out.write_bytes(content[:begin] + b"".join(chunks))
    assert b.reason(out) == ""


def test_the_mac_commits_the_header_to_the_file_key(out: Path) -> None:
    assert b.reason(b.forged(out, mac=lambda value: bytes(32))) == "altered"


def test_trailing_bytes_of_the_file(out: Path) -> None:
    b.bundle(out, b.contents(os.urandom(2 * CHUNK)))
    content = out.read_bytes()
    for more in (b"x", bytes(CHUNK), bytes(3 * CHUNK)):
        out.write_bytes(content + more)
        assert b.reason(out) == "trailing"


def test_trailing_bytes_of_the_payload(out: Path) -> None:
    """Sealed with the right key, so only the reader's last look finds them."""
    assert b.reason(b.forged(out, payload=lambda content: content + b"x")) == "trailing"
    assert b.reason(b.forged(out, payload=lambda content: content + bytes(2 * CHUNK))) == "trailing"


def test_a_receiver_cannot_change_or_shorten_the_files(out: Path) -> None:
    """Whoever can open a bundle knows its file key, so only the signed hashes hold the files."""
    assert b.reason(b.forged(out, payload=lambda content: content[:-1] + b"x")) == "altered"
    assert b.reason(b.forged(out, payload=lambda content: content[:-1])) == "truncated"


def test_other_recipient(out: Path) -> None:
    b.bundle(out)
    assert b.reason(out, reader=b.OTHER) == "other-recipient"


def test_stranger_is_told_by_words(out: Path) -> None:
    b.bundle(out, signer=b.identity("mallory"))
    with pytest.raises(BundleRefused) as problem:
        verify(out, b.EDGE, b.trust())
    assert problem.value.reason == "stranger"
    assert b.public(b.identity("mallory")).words in problem.value.message


def test_a_stranger_is_refused_before_its_manifest_is_parsed(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a stranger's manifest nor one whose signature is wrong reaches the parser."""
    b.bundle(out, signer=b.identity("mallory"))
    forged = b.forged(out.with_name("y.clb"), payload=lambda c: c[:32] + bytes(64) + c[96:])
    monkeypatch.setattr(b.manifests, "decode", lambda content: pytest.fail("parsed"))
    assert b.reason(out) == "stranger" and b.reason(forged) == "forged"


def test_revoked(out: Path) -> None:
    b.bundle(out)
    assert b.reason(out, known=b.trust(revoked=frozenset([b.CENTRE.key]))) == "revoked"


def test_forged(out: Path) -> None:
    def resigned(content: bytes) -> bytes:
        return bytes.fromhex(b.CENTRE.key) + content[32:]

    assert b.reason(b.forged(out, signer=b.identity("mallory"), payload=resigned)) == "forged"


def test_forwarded(out: Path) -> None:
    """Somebody who may open a bundle seals it for another, with the signature as it is."""
    assert (
        b.reason(b.forged(out, header_hash=lambda value: hashlib.sha256(b"other").hexdigest())) == "forwarded"
    )


def test_wrong_kind(out: Path) -> None:
    b.bundle(
        out, [bytes_source(b"w", "a-1.whl", "")], facts=b.changed(b.FACTS, kind="wheelhouse"), signer=b.OTHER
    )
    assert b.reason(out, known=b.trust(who=(b.OTHER,))) == "wrong-kind"
    b.bundle(out)
    assert b.reason(out, kinds=("round",)) == "other-kind" and b.reason(out, kinds=("model",)) == ""


def test_key_epochs(out: Path) -> None:
    assert b.reason(b.forged(out, spoil=lambda m: m.update(key_epoch=2))) == "new-epoch"
    later = b.Trust(
        now=b.NOW, signers={b.CENTRE.key: b.replace(b.trust().signers[b.CENTRE.key], key_epoch=2)}
    )
    b.bundle(out)
    assert b.reason(out, known=later) == "old-epoch"


def test_expired_and_from_the_future(out: Path) -> None:
    b.bundle(out, expires=b.NOW + 10)
    assert b.reason(out, known=b.trust(now=b.NOW + 9)) == ""
    assert b.reason(out, known=b.trust(now=b.NOW + 10)) == "expired"
    b.bundle(out, created=b.NOW + 401 * b.DAY, expires=b.NOW + 402 * b.DAY)
    assert b.reason(out) == "future"
    signer = b.replace(b.trust().signers[b.CENTRE.key], until=b.NOW)
    b.bundle(out)
    assert b.reason(out, known=b.Trust(now=b.NOW, signers={signer.key: signer})) == "trust-expired"


def test_replayed(out: Path) -> None:
    b.bundle(out, seq=5)
    for floor, why in ((4, ""), (5, "replayed"), (6, "replayed")):
        assert b.reason(out, known=b.trust(floors={(b.CENTRE.key, 1, "model"): floor})) == why
    elsewhere = {(b.CENTRE.key, 2, "model"): 9, (b.CENTRE.key, 1, "x"): 9, (b.OTHER.key, 1, "model"): 9}
    assert b.reason(out, known=b.trust(floors=elsewhere)) == ""


# --- wraps and sources


def test_a_wrap_opens_under_its_own_info_alone() -> None:
    for kem in ("x25519", "mlkem768-x25519"):
        encapsulated, sealed = wrap.wrap(bytes(32), b.EDGE.receiver, kem)
        assert wrap.unwrap(encapsulated, sealed, b.EDGE, kem) == bytes(32)
        assert wrap.unwrap(encapsulated, sealed, b.OTHER, kem) is None
        suite = hpke.Suite(
            hpke.KEM.X25519 if kem == "x25519" else hpke.KEM.MLKEM768_X25519,
            hpke.KDF.HKDF_SHA256,
            hpke.AEAD.AES_256_GCM,
        )
        for info in (b"cloister/b1/other", b"", None):
            with pytest.raises(InvalidTag):
                suite.decrypt(encapsulated + sealed, b.EDGE.private_key(kem), info)


def test_each_bundle_has_a_file_key_of_its_own(out: Path) -> None:
    """Counter nonces are safe only so."""
    keys = set()
    for _ in range(2):
        b.bundle(out)
        content = out.read_bytes()
        read = headers.read(content[16 : b.front(content) - 32])
        keys.add(headers.open_key(read, b.EDGE))
    assert len(keys) == 2 and bytes(32) not in keys


def test_export_takes_plain_files_alone(out: Path, tmp_path: Path) -> None:
    real = tmp_path / "real.gguf"
    real.write_bytes(b"GGUF")
    (tmp_path / "link.gguf").symlink_to(real)
    os.mkfifo(tmp_path / "pipe.gguf")
    for name in ("link.gguf", "pipe.gguf"):
        with pytest.raises(BundleRefused) as problem:
            file_source(tmp_path / name, "x.gguf", "")
        assert problem.value.reason == "no-plain-file"
    source = file_source(real, "x.gguf", "")
    os.link(real, tmp_path / "second.gguf")
    with pytest.raises(BundleRefused) as problem:
        b.bundle(out, [source])
    assert problem.value.reason == "no-plain-file" and not out.exists()


@pytest.mark.parametrize("new", [b"GGUX", b"GGUF+", b"GG"])
def test_what_changed_since_it_was_measured_does_not_leave(out: Path, tmp_path: Path, new: bytes) -> None:
    real = tmp_path / "real.gguf"
    real.write_bytes(b"GGUF")
    source = file_source(real, "x.gguf", "")
    real.write_bytes(new)
    with pytest.raises(BundleRefused) as problem:
        b.bundle(out, [source])
    assert problem.value.reason == "changed" and list(tmp_path.glob("*.clb*")) == []
    assert not list(tmp_path.glob(".x.clb*")), "no draft stays"
