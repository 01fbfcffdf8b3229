"""Files of format 1, made once, that every later version reads, and a reader made from the page alone."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import bundle_support as b
import pytest
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from appliance.security.bundle.reading import verify
from appliance.security.trust import root, store
from appliance.security.trust.identity import read_card

FROZEN = Path(__file__).resolve().parents[1] / "frozen" / "bundles"
FILES = sorted(FROZEN.glob("v1-*.clb"))


def test_all_suites_are_there() -> None:
    assert len(FILES) == 4


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_frozen_bundle_is_read(path: Path) -> None:
    for receiver in (b.EDGE, b.OTHER):
        opened = verify(path, receiver, b.trust())
        assert opened.suite.replace("+", "-") == path.stem.removeprefix("v1-")
        manifest = opened.manifest
        assert [entry.path for entry in manifest.files] == [
            "model.gguf",
            "reports/evaluation.json",
            "LICENSE",
            "more/0.txt",
        ]
        assert manifest.facts.privacy == b.PRIVACY and manifest.facts.checkpoint.startswith(
            "cloister.example/"
        )
        assert (manifest.created, manifest.expires) == (b.NOW - b.DAY, b.NOW + 90 * b.DAY)


def test_frozen_trust_is_read() -> None:
    card = read_card((FROZEN / "v1-card.json").read_bytes())
    assert card.key == b.CENTRE.key and card.words == "hymn enamel ingot edge nickel young dance regal"
    document = root.read_root((FROZEN / "v1-trust.json").read_bytes())
    assert document.signed_by(document.roots) == 2 and [one.name for one in document.signers] == [
        "centre",
        "edge-12",
    ]
    assert store.root_words(document) == "ukulele tarpon cedar grove trident botany salmon theater"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_reader_written_from_the_page_alone_reads_it(path: Path) -> None:
    """docs/bundle-format.md step by step, with nothing of the product but the test's keys."""
    content = path.read_bytes()
    assert content[:12] == b"CLOISTER-B1\n"
    length = int.from_bytes(content[12:16], "big")
    header, mac = content[16 : 16 + length], content[16 + length : 48 + length]
    held = json.loads(header)
    kem, aead = held["suite"].split("+")
    receiver = b.EDGE.receiver
    public = receiver.x25519 if kem == "x25519" else receiver.mlkem768 + receiver.x25519
    kid = hashlib.sha256(public).hexdigest()[:16]
    mine = next(one for one in held["recipients"] if one["kid"] == kid)
    suite = hpke.Suite(
        hpke.KEM.X25519 if kem == "x25519" else hpke.KEM.MLKEM768_X25519,
        hpke.KDF.HKDF_SHA256,
        hpke.AEAD.AES_256_GCM,
    )
    private = (
        b.EDGE.x25519 if kem == "x25519" else hpke.MLKEM768X25519PrivateKey(b.EDGE.mlkem768, b.EDGE.x25519)
    )
    file_key = suite.decrypt(bytes.fromhex(mine["enc"] + mine["wrapped"]), private, b"cloister/b1/wrap")

    def derived(salt: bytes, info: bytes) -> bytes:
        return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(file_key)

    assert hmac.new(derived(b"", b"cloister/b1/hdr"), header, "sha256").digest() == mac
    header_hash = hashlib.sha256(header + mac).digest()
    key = derived(header_hash, b"cloister/b1/payload")
    box = AESGCM(key) if aead == "aes-256-gcm" else ChaCha20Poly1305(key)
    plain = box.decrypt(bytes(11) + b"\1", content[48 + length :], None)  # one chunk, so the last
    size = int.from_bytes(plain[96:100], "big")
    manifest, files = plain[100 : 100 + size], plain[100 + size :]
    Ed25519PublicKey.from_public_bytes(plain[:32]).verify(plain[32:96], b"cloister/b1/manifest\0" + manifest)
    told = json.loads(manifest)
    assert told["hdr_sha256"] == header_hash.hex()
    for one in told["files"]:
        part, files = files[: one["size"]], files[one["size"] :]
        assert hashlib.sha256(part).hexdigest() == one["sha256"]
    assert files == b""
