"""Certificates of one federation: its own small authority, made by `cryptography`, EC P-384 throughout.

The authority signs the gateway's certificate and those of the sites, and nothing else; no system trusts it by
default. A site's key never leaves the site: it sends a request (PKCS #10) and gets a certificate. OpenSSL 3
and Flower want SAN, authorityKeyIdentifier and keyUsage in it.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.core.errors import ConfigWrong, TrustRefused

Key = ec.EllipticCurvePrivateKey
_EARLIER = timedelta(minutes=10)  # clocks differ
_USAGE = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


def new_key() -> Key:
    """A fresh P-384 key."""
    return ec.generate_private_key(ec.SECP384R1())


def key_pem(key: Key) -> bytes:
    """The key as unencrypted PKCS #8; where it lies is the caller's matter."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def node_key(key: Key) -> tuple[bytes, str]:
    """(private, public) in the OpenSSH form that Flower reads for a node."""
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return private, public.decode()


def authority(key: Key, name: str, *, now: datetime, days: int) -> x509.Certificate:
    """The federation's own root."""
    subject = _name(name, "authority")
    return (
        _draft(subject, subject, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**(_USAGE | {"key_cert_sign": True, "crl_sign": True})), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )


def server_certificate(
    root: x509.Certificate,
    root_key: Key,
    public: ec.EllipticCurvePublicKey,
    hosts: list[str],
    *,
    now: datetime,
    days: int,
) -> x509.Certificate:
    """A certificate for `hosts`, names or addresses.

    Raises:
        ConfigWrong: a host is neither.
    """
    draft = _draft(_name(hosts[0], "gateway"), root.subject, public, now, days)
    names = x509.SubjectAlternativeName([_host(host) for host in hosts])
    return _leaf(draft.add_extension(names, critical=False), root, root_key, ExtendedKeyUsageOID.SERVER_AUTH)


def request(key: Key, site: str) -> x509.CertificateSigningRequest:
    """What a site sends to get its certificate."""
    return (
        x509.CertificateSigningRequestBuilder().subject_name(_name(site, "site")).sign(key, hashes.SHA384())
    )


def site_certificate(
    root: x509.Certificate,
    root_key: Key,
    asked: x509.CertificateSigningRequest,
    site: str,
    *,
    now: datetime,
    days: int,
) -> x509.Certificate:
    """A client certificate with the common name `site`, whatever else the request asks for.

    Raises:
        TrustRefused: the request is not signed by its own key, which must be of P-384, or names another site.
    """
    public = asked.public_key()
    named = [part.value for part in asked.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if (
        not asked.is_signature_valid
        or not isinstance(public, ec.EllipticCurvePublicKey)
        or not isinstance(public.curve, ec.SECP384R1)
        or named != [site]
    ):
        raise TrustRefused(f"The certificate request of {site} is damaged.", "Ask the site for a new one.")
    return _leaf(
        _draft(_name(site, "site"), root.subject, public, now, days),
        root,
        root_key,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    )


def pem(certificate: x509.Certificate) -> bytes:
    """As PEM."""
    return certificate.public_bytes(Encoding.PEM)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER, in hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def _name(common: str, unit: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common[:64]),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Cloister"),
        ]
    )


def _draft(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=days))
    )


def _leaf(
    draft: x509.CertificateBuilder, root: x509.Certificate, root_key: Key, usage: x509.ObjectIdentifier
) -> x509.Certificate:
    return (
        draft.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**(_USAGE | {"digital_signature": True})), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False
        )
        .sign(root_key, hashes.SHA384())
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise ConfigWrong(
            f"{host} is no name or address of a machine.", "Give the gateway's address."
        ) from None
