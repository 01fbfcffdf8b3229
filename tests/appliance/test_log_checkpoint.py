"""Checkpoints: a published signed note, round trips, and what is refused."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import ConfigWrong, DataRejected
from appliance.security.log import checkpoint
from appliance.security.log.checkpoint import Signer, Verifier, fingerprint, key_id, read, sign, verifier

KEY = Signer(name="cloister/st-anna", key=Ed25519PrivateKey.from_private_bytes(bytes(32)))
TIME = datetime(2026, 11, 25, 10, 15, tzinfo=UTC)
MADE = sign(KEY, 48211, bytes(range(32)), TIME)

# The published example of golang.org/x/mod/sumdb/note: key, name, signed note.
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
GO_KEY = base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")


def test_what_it_looks_like() -> None:
    assert MADE.note.decode().startswith(
        "cloister/st-anna\n48211\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
        "time 2026-11-25T10:15:00Z\n\n— cloister/st-anna "
    )
    assert MADE.note.endswith(b"\n") and MADE.note.count(b"\n") == 6
    assert read(MADE.note, [verifier(KEY)]) == MADE
    assert len(fingerprint(MADE)) == 16 and int(fingerprint(MADE), 16)
    assert fingerprint(MADE, lambda digest: f"{len(digest)} bytes") == "32 bytes"


def test_a_note_of_another_implementation() -> None:
    """Its key is PeterNeumann+c74f20a3+ARpc..., an algorithm byte before the raw key."""
    assert GO_KEY[:1] == b"\1"
    text, ((name, key, signature),) = checkpoint._parts(GO_NOTE.encode())
    assert key_id(name, GO_KEY[1:]) == key == bytes.fromhex("c74f20a3")
    Ed25519PublicKey.from_public_bytes(GO_KEY[1:]).verify(signature, text)
    with pytest.raises(DataRejected):
        read(GO_NOTE.encode(), [Verifier(name=name, public=GO_KEY[1:])])  # signed, but no checkpoint


@given(st.integers(0, 10**16 - 1), st.binary(min_size=32, max_size=32), st.integers(0, 2**37))
def test_every_value_comes_back(size: int, root: bytes, seconds: int) -> None:
    time = datetime.fromtimestamp(seconds, UTC)
    made = sign(KEY, size, root, time)
    found = read(made.note, [verifier(KEY)])
    assert (found.size, found.root, found.time) == (size, root, time)


def resigned(text: str) -> bytes:
    """What somebody with the key could sign."""
    code = base64.b64encode(key_id(KEY.name, KEY.public) + KEY.sign(text.encode())).decode()
    return f"{text}\n— {KEY.name} {code}\n".encode()


TEXT = MADE.text.decode()


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("48211", "048211"),
        TEXT.replace("48211", "+48211"),
        TEXT.replace("48211", "48211 "),
        TEXT.replace("48211", "٤٨٢١١"),
        TEXT.replace("48211", "-1"),
        TEXT.replace("48211", "9" * 5000),
        TEXT.replace("48211\n", "48211\n\n"),
        TEXT.replace("Hh8=", "Hh9="),  # spare bits
        TEXT.replace("Hh8=", "Hh8"),
        TEXT.replace("AAEC", "A\tEC"),
        TEXT.replace("AAECAwQF", ""),
        TEXT.replace("time ", "Time "),
        TEXT.replace("11-25T", "13-25T"),
        TEXT.replace("10:15:00Z", "10:15:00+00:00"),
        TEXT.replace("10:15:00Z", "10:15:60Z"),
        TEXT + "more\n",
        TEXT.replace("time 2026-11-25T10:15:00Z\n", ""),
        TEXT.replace("cloister/st-anna", "cloister/st anna"),
        TEXT.replace("cloister/st-anna", "st-anna"),
        "",
    ],
)
def test_one_way_to_write_it(text: str) -> None:
    with pytest.raises(DataRejected):
        read(resigned(text), [verifier(KEY)])
    assert read(resigned(TEXT), [verifier(KEY)]) == MADE


@pytest.mark.parametrize(
    "note",
    [
        b"",
        MADE.note[:-1],
        MADE.note + b"\n",
        MADE.note + b"x",
        MADE.note.replace(b"\n", b"\r\n"),
        MADE.note.replace("—".encode(), b"-"),
        MADE.note.replace("— ".encode(), "—  ".encode()),
        MADE.note.replace(b"\n\n", b"\n"),
        MADE.note.replace(b"48211", b"48212"),
        MADE.note.replace(b"10:15", b"10:16"),
        b"\xff" + MADE.note,
        b"\xef\xbb\xbf" + MADE.note,
        MADE.note + "— x AAAAAA==\n".encode() * 16,
        MADE.note + "— x ".encode() + b"A" * 20000 + b"\n",
        MADE.note + "— x AAAA\n".encode(),
    ],
)
def test_a_note_that_was_altered(note: bytes) -> None:
    with pytest.raises(DataRejected):
        read(note, [verifier(KEY)])


def test_every_flipped_bit_is_seen() -> None:
    for place in range(len(MADE.note)):
        for bit in range(8):
            spoilt = bytearray(MADE.note)
            spoilt[place] ^= 1 << bit
            with pytest.raises(DataRejected):
                read(bytes(spoilt), [verifier(KEY)])


def test_the_signature_is_what_stops_an_altered_note(monkeypatch: pytest.MonkeyPatch) -> None:
    class Credulous:
        @staticmethod
        def from_public_bytes(raw: bytes) -> Credulous:
            return Credulous()

        def verify(self, signature: bytes, text: bytes) -> None:
            pass

    altered = MADE.note.replace(b"48211", b"48212")
    monkeypatch.setattr(checkpoint, "Ed25519PublicKey", Credulous)
    assert read(altered, [verifier(KEY)]).size == 48212


def test_signatures_of_others_are_passed_over_and_do_not_count() -> None:
    other = Signer(name="cloister/branch-north", key=Ed25519PrivateKey.generate())
    code = base64.b64encode(key_id(other.name, other.public) + other.sign(MADE.text)).decode()
    cosigned = MADE.note + f"— {other.name} {code}\n".encode()
    assert read(cosigned, [verifier(KEY)]).size == MADE.size
    assert read(cosigned, [verifier(other), verifier(KEY)]).size == MADE.size
    with pytest.raises(DataRejected, match="not signed"):  # a partner's word is not the site's
        read(cosigned, [verifier(other)])
    with pytest.raises(DataRejected, match="wrong"):  # a known key's wrong signature spoils all
        read(cosigned.replace(b"48211", b"48212"), [verifier(other)])
    stranger = Verifier(name=KEY.name, public=other.public)
    with pytest.raises(DataRejected, match="not signed"):
        read(MADE.note, [stranger])
    with pytest.raises(DataRejected, match="not signed"):
        read(MADE.note, [])


@pytest.mark.parametrize("name", ["st-anna", "cloister/", "cloister/a b", "cloister/a+b", "cloister/a\n"])
def test_a_name_that_is_no_origin(name: str) -> None:
    with pytest.raises(ConfigWrong):
        sign(Signer(name=name, key=KEY.key), 1, bytes(32), TIME)
