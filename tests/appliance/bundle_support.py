"""Bundles for tests: three fixed identities, small files, and every part of a bundle open to be spoilt."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from appliance.core.errors import BundleRefused
from appliance.core.home import Home
from appliance.security import canonical
from appliance.security.bundle import header as headers
from appliance.security.bundle import manifest as manifests
from appliance.security.bundle.format import CHUNK, MAGIC, SIGNED_MANIFEST, TAG
from appliance.security.bundle.manifest import Entry, Facts, Manifest
from appliance.security.bundle.reading import Reader
from appliance.security.bundle.refusals import REASONS
from appliance.security.bundle.stream import cipher
from appliance.security.bundle.writing import Source, Written, bytes_source, write
from appliance.security.trust import store
from appliance.security.trust.identity import Identity, identity_of, public
from appliance.security.trust.trust import Trust, signer_of

NOW = 1_800_000_000
DAY = 86_400
HYBRID, PLAIN = "mlkem768-x25519+aes-256-gcm", "x25519+aes-256-gcm"
PRIVACY = {
    "unit": "patient",
    "eps": "3.1",
    "delta": "1e-5",
    "accountant": "pld",
    "events": [{"noise_multiplier": "0.92", "sample_rate": "0.004", "draws": 1, "steps": 2000}],
    "audit": "PASS",
}
FACTS = Facts(kind="model", name="lora-0007-Q4_K_M", form="gguf", privacy=PRIVACY, license="Apache-2.0")


@cache
def identity(name: str, role: str = "release") -> Identity:
    """The same keys for the same name, for ever. Test keys: anyone can make them."""
    seeds = {
        part: hashlib.sha512(f"{name}/{part}".encode()).digest()[:size].hex()
        for part, size in (("sign", 32), ("x25519", 32), ("mlkem768", 64))
    }
    return identity_of(canonical.encode({"v": 1, "name": name, "role": role, "key_epoch": 1, **seeds}))


CENTRE, EDGE, OTHER = identity("centre"), identity("edge-12", "edge"), identity("branch-north", "site")


def trust(*, now: int = NOW, who: Sequence[Identity] = (CENTRE,), **changes: Any) -> Trust:
    """Trust in some identities at `now`."""
    return Trust(now=now, signers={one.key: signer_of(public(one)) for one in who}, **changes)


def contents(*parts: bytes) -> list[Source]:
    """Files of one bundle."""
    parts = parts or (b"GGUF" + bytes(range(256)) * 40, b'{"passed":true}')
    names = [
        "model.gguf",
        "reports/evaluation.json",
        "LICENSE",
        *(f"more/{n}.txt" for n in range(len(parts))),
    ]
    return [bytes_source(part, name, "a file") for part, name in zip(parts, names, strict=False)]


def bundle(
    out: Path,
    sources: Sequence[Source] | None = None,
    *,
    facts: Facts = FACTS,
    signer: Identity = CENTRE,
    to: Sequence[Identity] = (EDGE,),
    suite: str = PLAIN,
    line: str = "model",
    seq: int = 1,
    created: int = NOW - DAY,
    expires: int = NOW + 90 * DAY,
) -> Written:
    """A sound bundle, unless told otherwise."""
    return write(
        out,
        contents() if sources is None else sources,
        facts,
        identity=signer,
        receivers=[one.receiver for one in to],
        suite=suite,
        line=line,
        seq=seq,
        created=created,
        expires=expires,
    )


def forged(
    out: Path,
    *,
    spoil: Callable[[dict[str, Any]], Any] = lambda manifest: None,
    raw: Callable[[bytes], bytes] = lambda content: content,
    files: bytes = b"GGUF and more",
    payload: Callable[[bytes], bytes] = lambda content: content,
    header_hash: Callable[[str], str] = lambda value: value,
    signer: Identity = CENTRE,
    to: Identity = EDGE,
    mac: Callable[[bytes], bytes] = lambda value: value,
) -> Path:
    """A bundle made with the right keys by somebody who may break any rule: signed and sealed anew."""
    file_key = os.urandom(32)
    header = headers.make(file_key, [to.receiver], PLAIN)
    keys = headers.keys(header, file_key)
    manifest = Manifest(
        hdr_sha256=header_hash(keys.hash.hex()),
        line="model",
        seq=1,
        key_epoch=signer.key_epoch,
        created=NOW - DAY,
        expires=NOW + 90 * DAY,
        facts=FACTS,
        files=(Entry(path="model.gguf", what="", size=len(files), sha256=hashlib.sha256(files).hexdigest()),),
    )
    held = canonical.decode(manifests.encode(manifest))
    spoilt = spoil(held)
    content = raw(canonical.encode(held if spoilt is None else spoilt))
    signature = signer.sign(SIGNED_MANIFEST + content)
    plain = payload(bytes.fromhex(signer.key) + signature + len(content).to_bytes(4, "big") + content + files)
    front = MAGIC + len(header.content).to_bytes(4, "big") + header.content + mac(keys.mac)
    out.write_bytes(front + sealed(plain, header.aead, keys.payload))
    return out


def sealed(plain: bytes, aead: str, key: bytes) -> bytes:
    """STREAM, written the plainest way: a second hand beside the product's."""
    box, chunks = cipher(aead, key), [plain[at : at + CHUNK] for at in range(0, len(plain), CHUNK)]
    return b"".join(
        box.encrypt(n.to_bytes(11, "big") + bytes([n == len(chunks) - 1]), chunk, None)
        for n, chunk in enumerate(chunks)
    )


def reason(path: Path, *, reader: Identity = EDGE, known: Trust | None = None, **rest: Any) -> str:
    """Why a bundle is refused; "" where it is not."""
    try:
        with Reader(path, reader, known or trust(), **rest) as opened:
            opened.files()
    except BundleRefused as problem:
        assert problem.reason in REASONS and problem.exit_code == 12
        assert problem.code == f"bundle-{problem.reason}" and problem.hint
        return problem.reason
    return ""


def front(content: bytes) -> int:
    """Where the chunks of a bundle begin."""
    return len(MAGIC) + 4 + int.from_bytes(content[12:16], "big") + 32


def chunk_spans(content: bytes) -> list[tuple[int, int]]:
    """Where each chunk of a bundle lies."""
    begin = front(content)
    return [(at, min(at + CHUNK + TAG, len(content))) for at in range(begin, len(content), CHUNK + TAG)]


def pinned(home: Home, *who: Identity) -> None:
    """Trust identities in a home, as two people would."""
    for one in who or (CENTRE,):
        card = public(one)
        store.pin(home, card, words=card.words, compared_by=["mira", "joe"], who="mira")


def changed(facts: Facts, **changes: Mapping[str, Any] | str | None) -> Facts:
    """Facts, some of them others."""
    return replace(facts, **changes)  # type: ignore[arg-type]
