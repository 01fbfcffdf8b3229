"""The site's own TLS certificate, for an endpoint that other machines reach: a small CA and what it signs.

In the home's folder `tls`, readable by its owner only: ca.pem, ca.key, server.pem, server.key; the keys are
sealed where the home is. Clients are given ca.pem once; what it may vouch for is in serve/authority.py.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong
from appliance.core.files import replacing
from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.security import audit
from appliance.serve.authority import (
    Pair,
    fingerprint,
    is_number,
    make_authority,
    make_server,
    names_in,
    permitted,
)

RENEWED_BEFORE = timedelta(days=30)
_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*")


@dataclass(frozen=True, kw_only=True)
class SiteCertificate:
    """Files for the server (`certificate`, `key`) and for its clients (`ca`).

    `fingerprint` is the SHA-256 of the CA, to compare when ca.pem is handed over; `own_fingerprint` that
    of the server's certificate. `names` are the names and addresses it is good for.
    """

    certificate: Path
    key: Path
    ca: Path
    fingerprint: str
    own_fingerprint: str
    names: tuple[str, ...]
    ends: datetime


def site_certificate(home: Home, host: str, *, who: str, now: datetime | None = None) -> SiteCertificate:
    """A certificate for the endpoint on `host` (a numeric address or localhost), made or renewed if needed.

    It is good for the address (for 0.0.0.0 and :: all of this machine), the machine's name, localhost and
    127.0.0.1, and is renewed when an address is missing or it ends within 30 days. The CA stays, so a
    machine that got another name is known by its addresses only: for the name, delete the folder `tls`
    and give clients the new ca.pem.

    Raises:
        ConfigWrong: files of the folder are missing or damaged. NoRoom: the disk is full.
    """
    now = now or datetime.now(UTC)
    folder = home.tls
    names = _names(host)
    found = _usable(folder, names, now)
    if found is None:
        # The transaction also keeps two endpoints that start together from each making a CA.
        with transaction(home) as link:
            folder.mkdir(mode=0o700, exist_ok=True)
            authority = _read_pair(folder, "ca")
            if authority is None or authority[0].not_valid_after_utc - now < 2 * RENEWED_BEFORE:
                authority = make_authority(names, now)
                _write_pair(folder, "ca", authority)
                audit.record(link, who=who, what="tls.ca", target="ca", sha256=fingerprint(authority[0]))
            found = _usable(folder, names, now)
            if found is None:
                pair = make_server(authority, names, now)
                _write_pair(folder, "server", pair)
                found = pair[0]
                audit.record(
                    link,
                    who=who,
                    what="tls.certificate",
                    target="server",
                    sha256=fingerprint(found),
                    names=list(names_in(found)),
                )
    return SiteCertificate(
        certificate=folder / "server.pem",
        key=folder / "server.key",
        ca=folder / "ca.pem",
        fingerprint=fingerprint(_read_certificate(folder / "ca.pem")),
        own_fingerprint=fingerprint(found),
        names=names_in(found),
        ends=found.not_valid_after_utc,
    )


def _names(host: str) -> list[str]:
    """The names and addresses to be good for, each once."""
    addresses = ["127.0.0.1" if host == "localhost" else host.partition("%")[0]]
    if not is_number(addresses[0]):
        raise ConfigWrong(
            f"{host} is not a numeric address.", "Give --host as numbers, such as 192.168.1.10."
        )
    if ipaddress.ip_address(addresses[0]).is_unspecified:
        every = [entry for entries in psutil.net_if_addrs().values() for entry in entries]
        inet = (socket.AF_INET, socket.AF_INET6)
        # A link-local address means nothing without its interface, which certificates cannot name.
        addresses = [entry.address for entry in every if entry.family in inet and "%" not in entry.address]
    numbers = [str(ipaddress.ip_address(address)) for address in addresses]
    machine = socket.gethostname().lower()
    return list(
        dict.fromkeys(["localhost", *filter(_NAME.fullmatch, [machine]), "127.0.0.1", *sorted(numbers)])
    )


def _usable(folder: Path, names: Iterable[str], now: datetime) -> x509.Certificate | None:
    """The server's certificate, if it is whole, lasts and covers `names`."""
    try:
        pair, authority = _read_pair(folder, "server"), _read_certificate(folder / "ca.pem")
        if pair is None:
            return None
        found = pair[0]
        found.verify_directly_issued_by(authority)
        wanted = {name for name in names if permitted(authority, name)}
        covered = wanted <= set(names_in(found))
    except (ConfigWrong, InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return None
    lasts = found.not_valid_before_utc <= now <= found.not_valid_after_utc - RENEWED_BEFORE
    return found if lasts and covered else None


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read_bytes(path))
    except (OSError, ValueError) as problem:
        raise _damaged(path) from problem


def _read_pair(folder: Path, name: str) -> Pair | None:
    """A certificate and its key; None if there is no certificate: it is written last.

    Raises:
        ConfigWrong: one is damaged, or they do not belong together.
    """
    path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
    if not path.exists():
        return None
    certificate = _read_certificate(path)
    try:
        key = serialization.load_pem_private_key(read_bytes(key_path), None)
    except (OSError, ValueError, TypeError) as problem:
        raise _damaged(key_path) from problem
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise _damaged(key_path)
    return certificate, key


def _write_pair(folder: Path, name: str, pair: Pair) -> None:
    certificate, key = pair
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    for path, content in ((folder / f"{name}.key", private), (folder / f"{name}.pem", public)):
        with replacing(path) as draft:
            draft.touch(mode=0o600)
            draft.write_bytes(content)


def _damaged(path: Path) -> ConfigWrong:
    return ConfigWrong(
        f"{path} is missing, damaged, or does not belong to the file beside it.",
        f"Restore {path.parent} from a backup, or delete it: a new CA is made, which clients must be given.",
    )
