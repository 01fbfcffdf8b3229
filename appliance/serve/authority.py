"""A small CA and what it signs: P-256, SHA-256, as RFC 5280 wants them. Pure: nothing is read or written.

The CA is bound to names by name constraints (RFC 5280, 4.2.1.10), so that whoever steals it cannot
pass for other machines of the site by name. Numeric addresses are free, as they change.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS, SERVER_DAYS = 3650, 397
Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]
_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def make_authority(names: Iterable[str], now: datetime) -> Pair:
    """A CA for ten years. It can vouch for no names but those of `names`, and for any address."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Cloister site CA {serial:x}"[:25])])
    own = x509.NameConstraints([x509.DNSName(name) for name in names if not is_number(name)], None)
    usage = _usage(key_cert_sign=True, crl_sign=True)
    draft = _draft(subject, subject, key, serial, now, now + timedelta(days=CA_DAYS))
    draft = draft.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    draft = draft.add_extension(usage, critical=True).add_extension(own, critical=True)
    return draft.sign(key, hashes.SHA256()), key


def make_server(authority: Pair, names: Iterable[str], now: datetime) -> Pair:
    """A server's certificate for 397 days and for those of `names` that the CA may vouch for."""
    issuer, issuer_key = authority
    key = ec.generate_private_key(ec.SECP256R1())
    allowed = [name for name in names if permitted(issuer, name)]
    alternatives = x509.SubjectAlternativeName([_general(name) for name in allowed])
    ends = min(now + timedelta(days=SERVER_DAYS), issuer.not_valid_after_utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Cloister endpoint")])
    draft = _draft(subject, issuer.subject, key, x509.random_serial_number(), now, ends)
    draft = draft.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    draft = draft.add_extension(_usage(digital_signature=True), critical=True)
    draft = draft.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    draft = draft.add_extension(alternatives, critical=False)
    by = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return draft.add_extension(by, critical=False).sign(issuer_key, hashes.SHA256()), key


def _draft(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    serial: int,
    begins: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    """Clients' clocks may be an hour behind; the whole span stays what was asked for."""
    hour = timedelta(hours=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(begins - hour)
        .not_valid_after(ends - hour)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(**on: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: on.get(use, False) for use in _USES})


def permitted(authority: x509.Certificate, name: str) -> bool:
    """Whether the CA may vouch for `name`."""
    if is_number(name):
        return True
    limits = authority.extensions.get_extension_for_class(x509.NameConstraints).value
    return x509.DNSName(name) in (limits.permitted_subtrees or [])


def is_number(name: str) -> bool:
    """Whether `name` is a numeric address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _general(name: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(name)) if is_number(name) else x509.DNSName(name)


def names_in(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names and addresses a certificate is good for."""
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(str(entry.value) for entry in found)


def fingerprint(certificate: x509.Certificate) -> str:
    """As `openssl x509 -fingerprint -sha256` prints it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()
