"""The numbers and words of bundle format 1; docs/bundle-format.md is the page a stranger reads."""

from __future__ import annotations

from typing import Final

VERSION: Final = 1
MAGIC: Final = b"CLOISTER-B1\n"
MAGIC_FAMILY: Final = b"CLOISTER-B"

HEADER_MOST: Final = 64 << 10  # bytes
MAC_SIZE: Final = 32
CHUNK: Final = 1 << 20  # bytes of plaintext; only the last may be shorter
TAG: Final = 16
MANIFEST_MOST: Final = 4 << 20
FILES_MOST: Final = 10_000
SIZE_MOST: Final = 1 << 50  # bytes of all files
RECIPIENTS_MOST: Final = 16
HEAD: Final = 32 + 64 + 4  # signer, signature, length of the manifest

INFO_WRAP: Final = b"cloister/b1/wrap"
INFO_HEADER: Final = b"cloister/b1/hdr"
INFO_PAYLOAD: Final = b"cloister/b1/payload"
SIGNED_MANIFEST: Final = b"cloister/b1/manifest\0"

KEMS: Final = ("mlkem768-x25519", "x25519")
AEADS: Final = ("aes-256-gcm", "chacha20-poly1305")
SUITES: Final = tuple(f"{kem}+{aead}" for kem in KEMS for aead in AEADS)
WRAPPED: Final = {"mlkem768-x25519": (1120, 48), "x25519": (32, 48)}
"""Bytes of the encapsulated key and of the sealed file key."""

_TOLD: Final = (".json", ".md", ".txt")
SUFFIXES: Final = {
    "model": (".gguf", *_TOLD),
    "adapter": (".safetensors", *_TOLD),
    "wheelhouse": (".whl", ".tar.gz", ".lock", ".py", ".sh", *_TOLD),
    "round": (".safetensors", *_TOLD),
    "trust": (".json",),
}
"""What each kind of bundle may carry: nothing that is ever unpickled, and only a wheelhouse what is run."""

KINDS: Final = tuple(SUFFIXES)
PLAIN_NAMES: Final = ("LICENSE", "NOTICE")
OF_WHEELHOUSE: Final = "SHA256SUMS"


def payload_size(plaintext: int) -> int:
    """Bytes of the chunks of so much plaintext."""
    return plaintext + TAG * max(1, -(-plaintext // CHUNK))
