"""The two files of an enrolment, both canonical JSON with a signature over all the rest.

A request says what a site will be known by: {v, federation, site, key, x25519, node, csr, units, at}, signed
with `key`. Its eight words are those of the whole file's SHA-256, so they vouch for every field.
A kit is the answer: {v, request, site, seat, authority, certificate, agreement, agreement_signature}, signed
by the coordinator. It holds no secret: without the private keys of the request it is useless.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance.core.errors import ApplianceError, TrustRefused
from appliance.security import canonical
from appliance.security.trust.identity import verify
from appliance.security.trust.words import same_words, words_of
from federated import description
from federated.description import Digest, Federation, Name

LONGEST = 2 << 20
_REQUEST, _KIT = b"cloister/f1/request\0", b"cloister/f1/kit\0"


class _Paper(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    v: int = Field(ge=1, le=1)


class Request(_Paper):
    """What a site asks to be enrolled with; `units` is the most patients it will ever claim."""

    federation: Name
    site: Name
    key: Digest
    x25519: Digest
    node: str = Field(max_length=400)
    csr: str = Field(max_length=8192)
    units: int = Field(ge=1, le=1_000_000)
    at: str = Field(max_length=40)


class Kit(_Paper):
    """What a coordinator answers: `request` is the digest of what it approved, `seat` counts from 1."""

    request: Digest
    site: Name
    seat: int = Field(ge=1, le=10_000)
    authority: str = Field(max_length=8192)
    certificate: str = Field(max_length=8192)
    agreement: str = Field(max_length=description.LONGEST)
    agreement_signature: str = Field(pattern=r"^[0-9a-f]{128}$")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A kit whose signatures hold; whose coordinator it is, words must tell."""

    kit: Kit
    federation: Federation
    authority: x509.Certificate
    certificate: x509.Certificate

    @property
    def words(self) -> str:
        """The eight words of the coordinator's key, as `cloister trust card` shows them there."""
        return words_of(self.federation.coordinator_key)


def digest(content: bytes) -> str:
    """What a request is called by: SHA-256 of the file."""
    return hashlib.sha256(content).hexdigest()


def request_words(content: bytes) -> str:
    """The eight words that a site reads out."""
    return words_of(digest(content))


def check_words(given: str, content: bytes, site: str) -> None:
    """Refuse a request whose words were not read out so. Raises TrustRefused."""
    if not same_words(given, digest(content)):
        raise TrustRefused(
            f"These are not the words of the request of {site}.",
            "Do not approve it: have the site read them out again, by telephone or face to face.",
        )


def write_request(said: Request, sign: Callable[[bytes], bytes]) -> bytes:
    """The signed file."""
    return _written(_REQUEST, said.model_dump(), sign)


def read_request(content: bytes) -> Request:
    """The request of a file, signed by the key it names. Whose key that is, its words must tell.

    Raises:
        TrustRefused: it is none, or it was altered.
    """
    try:
        body, signature = _parted(content)
        said = Request.model_validate(body)
        if not verify(said.key, signature, _REQUEST + canonical.encode(body)):
            raise ValueError("another signature")
        node = load_ssh_public_key(said.node.encode())
        if not isinstance(node, ec.EllipticCurvePublicKey) or not isinstance(node.curve, ec.SECP384R1):
            raise ValueError("no node key")
        x509.load_pem_x509_csr(said.csr.encode())
    except (ValueError, ValidationError) as problem:
        raise TrustRefused(
            "This is no enrolment request, or it was altered.", "Have the site make it again."
        ) from problem
    return said


def write_kit(said: Kit, sign: Callable[[bytes], bytes]) -> bytes:
    """The signed file."""
    return _written(_KIT, said.model_dump(), sign)


def read_kit(content: bytes) -> Opened:
    """The kit of a file, signed by the coordinator that its agreement names.

    Raises:
        TrustRefused: it is none, or it was altered.
    """
    try:
        body, signature = _parted(content)
        kit = Kit.model_validate(body)
        agreement = kit.agreement.encode()
        key = description.parsed(agreement).coordinator_key
        federation = description.opened(agreement, bytes.fromhex(kit.agreement_signature), key)
        if not verify(key, signature, _KIT + canonical.encode(body)):
            raise ValueError("another signature")
        return Opened(
            kit=kit,
            federation=federation,
            authority=x509.load_pem_x509_certificate(kit.authority.encode()),
            certificate=x509.load_pem_x509_certificate(kit.certificate.encode()),
        )
    except (ValueError, ValidationError, ApplianceError) as problem:
        raise TrustRefused(
            "This is no kit, or it was altered.", "Ask the coordinator for it again: federate approve"
        ) from problem


def _written(purpose: bytes, body: dict[str, Any], sign: Callable[[bytes], bytes]) -> bytes:
    signature = sign(purpose + canonical.encode(body)).hex()
    return canonical.encode({**body, "signature": signature}) + b"\n"


def _parted(content: bytes) -> tuple[dict[str, Any], bytes]:
    if len(content) > LONGEST:
        raise ValueError("too long")
    held = canonical.decode(content.removesuffix(b"\n"))
    if not isinstance(held, dict) or not isinstance(held.get("signature"), str):
        raise ValueError("no signed object")
    return {name: value for name, value in held.items() if name != "signature"}, bytes.fromhex(
        held["signature"]
    )
