"""The site's certificate in real handshakes: the CA vouches for this machine and for nothing else."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from appliance.core.db import reading
from appliance.core.errors import ConfigWrong
from appliance.core.home import Home, open_home
from appliance.security import audit
from appliance.serve import authority, certificate
from appliance.serve.certificate import SiteCertificate, site_certificate
from appliance.serve.listen import check_tls

HOST = "10.20.30.40"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(socket, "gethostname", lambda: "Ward3")
    return open_home(tmp_path / "home")


def greet(chain: Path, key: Path, ca: Path, name: str) -> str:
    """The TLS version of a handshake in which the client, trusting `ca`, asks for `name`."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key)
    client = ssl.create_default_context(cafile=ca)
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    near, far = socket.socketpair()
    near.settimeout(10)
    far.settimeout(10)

    def serve() -> None:
        try:
            with server.wrap_socket(far, server_side=True) as stream:
                stream.recv(1)
        except (ssl.SSLError, OSError):
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with near, client.wrap_socket(near, server_hostname=name) as stream:
            return stream.version() or ""
    finally:
        thread.join()


def handshake(made: SiteCertificate, name: str, *, ca: Path | None = None) -> str:
    return greet(made.certificate, made.key, ca or made.ca, name)


def whats(home: Home) -> list[str]:
    with reading(home) as link:
        return [entry["what"] for entry in audit.tail(link, 99)]


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_clients_that_trust_the_ca_reach_the_endpoint_by_all_its_names(home: Home) -> None:
    made = site_certificate(home, HOST, who="mira")
    assert made.names == ("localhost", "ward3", "127.0.0.1", HOST)
    check_tls(made.certificate, made.key)
    for name in made.names:
        assert handshake(made, name) == "TLSv1.3"
    for name in ("10.20.30.41", "ward4", "localhost.example", "x.ward3"):
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            handshake(made, name)
    assert whats(home) == ["tls.ca", "tls.certificate"]


def test_another_sites_ca_is_not_trusted(home: Home, tmp_path: Path) -> None:
    made = site_certificate(home, HOST, who="mira")
    other = site_certificate(open_home(tmp_path / "other"), HOST, who="mira")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made, HOST, ca=other.ca)


def test_a_stolen_ca_cannot_pass_for_other_names(home: Home, tmp_path: Path) -> None:
    made = site_certificate(home, HOST, who="mira")
    ca_key = serialization.load_pem_private_key((home.tls / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    pair = (read(made.ca), ca_key)

    def forge(names: list[str], folder: Path) -> SiteCertificate:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(authority, "permitted", lambda ca, name: True)
            forged = authority.make_server(pair, names, datetime.now(UTC))
        folder.mkdir()
        certificate._write_pair(folder, "server", forged)
        return SiteCertificate(
            certificate=folder / "server.pem",
            key=folder / "server.key",
            ca=made.ca,
            fingerprint="",
            own_fingerprint="",
            names=(),
            ends=made.ends,
        )

    assert handshake(forge(["localhost"], tmp_path / "good"), "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        handshake(forge(["bank.example"], tmp_path / "bad"), "bank.example")


def test_only_the_owner_reads_the_files(home: Home) -> None:
    made = site_certificate(home, HOST, who="mira")
    files = {path.name: path.stat().st_mode & 0o777 for path in home.tls.iterdir()}
    assert files == dict.fromkeys(("ca.key", "ca.pem", "server.key", "server.pem"), 0o600)
    assert home.tls.stat().st_mode & 0o777 == 0o700
    ca = ssl.PEM_cert_to_DER_cert(made.ca.read_text())
    assert (
        made.fingerprint.replace(":", "")
        == x509.load_der_x509_certificate(ca)
        .fingerprint(
            x509.load_der_x509_certificate(ca).signature_hash_algorithm  # type: ignore[arg-type]
        )
        .hex()
        .upper()
    )


def test_lifetimes_are_as_said(home: Home) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    made = site_certificate(home, HOST, who="mira", now=now)
    for path, days in ((made.certificate, 397), (made.ca, 3650)):
        found = read(path)
        assert found.not_valid_after_utc - found.not_valid_before_utc == timedelta(days=days)
        assert isinstance(found.public_key(), ec.EllipticCurvePublicKey)


def test_it_is_kept_and_renewed_in_time_by_the_same_ca(home: Home) -> None:
    now = datetime.now(UTC)
    first = site_certificate(home, HOST, who="mira", now=now)
    last = first.ends - timedelta(days=30)
    for at in (now, last):
        assert site_certificate(home, HOST, who="mira", now=at) == first
    second = site_certificate(home, HOST, who="mira", now=last + timedelta(seconds=1))
    assert second.fingerprint == first.fingerprint
    assert second.own_fingerprint != first.own_fingerprint and second.ends > first.ends
    assert whats(home) == ["tls.ca", "tls.certificate", "tls.certificate"]


def test_another_address_renews_it_and_old_clients_still_trust_it(home: Home, tmp_path: Path) -> None:
    first = site_certificate(home, HOST, who="mira")
    old = tmp_path / "given.pem"
    old.write_bytes(first.ca.read_bytes())
    second = site_certificate(home, "fd00::7", who="mira")
    assert second.fingerprint == first.fingerprint and second.names[-1] == "fd00::7"
    assert handshake(second, "fd00::7", ca=old) == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(second, HOST, ca=old)
    assert site_certificate(home, "localhost", who="mira") == second  # it covers that too


def test_a_machine_that_got_another_name_keeps_its_ca(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    first = site_certificate(home, HOST, who="mira")
    monkeypatch.setattr(socket, "gethostname", lambda: "ward4")
    second = site_certificate(home, "10.0.0.9", who="mira")
    assert second.fingerprint == first.fingerprint
    assert second.names == ("localhost", "127.0.0.1", "10.0.0.9")
    assert handshake(second, "10.0.0.9", ca=first.ca) == "TLSv1.3"


def test_all_addresses_are_those_of_the_machine(home: Home) -> None:
    assert "127.0.0.1" in site_certificate(home, "0.0.0.0", who="mira").names  # noqa: S104
    assert not {"0.0.0.0", "::"} & set(site_certificate(home, "::", who="mira").names)  # noqa: S104


@pytest.mark.parametrize("name", ["", "not_a_name", "straße", "-x", "a..b", "x" * 64])
def test_a_machine_name_that_is_no_dns_name_is_left_out(
    home: Home, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert site_certificate(home, HOST, who="mira").names == ("localhost", "127.0.0.1", HOST)


def test_an_old_ca_is_replaced_before_it_ends(home: Home) -> None:
    now = datetime.now(UTC)
    first = site_certificate(home, HOST, who="mira", now=now)
    late = now + timedelta(days=3600)
    second = site_certificate(home, HOST, who="mira", now=late)
    assert second.fingerprint != first.fingerprint and second.ends - late > timedelta(days=390)
    near = site_certificate(home, HOST, who="mira", now=late + timedelta(days=3500))
    assert near.fingerprint == second.fingerprint and near.ends < read(near.ca).not_valid_after_utc


@pytest.mark.parametrize("how", ["garbage", "gone", "other"])
def test_a_damaged_server_pair_is_made_again_and_a_damaged_ca_refused(
    home: Home, tmp_path: Path, how: str
) -> None:
    first = site_certificate(home, HOST, who="mira")
    other = site_certificate(open_home(tmp_path / "other"), HOST, who="mira")

    def damage(name: str) -> None:
        path = home.tls / name
        if how == "gone":
            path.unlink()
        else:
            path.write_bytes(b"x" if how == "garbage" else (other.key.parent / name).read_bytes())

    damage("server.key")
    second = site_certificate(home, HOST, who="mira")
    assert second.fingerprint == first.fingerprint != second.own_fingerprint != first.own_fingerprint
    assert handshake(second, HOST) == "TLSv1.3"
    damage("ca.key")
    assert site_certificate(home, HOST, who="mira") == second  # nothing to sign
    with pytest.raises(ConfigWrong, match=r"ca\.key"):
        site_certificate(home, "10.9.9.9", who="mira")


def test_a_crash_between_the_files_of_a_first_pair_does_no_harm(home: Home) -> None:
    site_certificate(home, HOST, who="mira")
    for name in ("ca.pem", "server.pem", "server.key"):
        (home.tls / name).unlink()
    assert handshake(site_certificate(home, HOST, who="mira"), HOST) == "TLSv1.3"


def test_a_host_must_be_a_number(home: Home) -> None:
    with pytest.raises(ConfigWrong, match="numeric"):
        site_certificate(home, "ward3.example", who="mira")
    assert not home.tls.exists()
