"""Probes of the network: no way out, what listens here and how, bundles, API keys, certificates."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta

import psutil

from appliance.core.db import reading
from appliance.core.processes import alive
from appliance.ops.evidence.shape import Found, Look, absent, count, lacks, some, supports
from appliance.security import keys
from appliance.security.airgap import jail, policy, selftest
from appliance.security.bundle.format import SUITES

KEY_DAYS = 90
"""Days that an API key may be good for."""

_PATIENCE = 5.0


def airgap(look: Look) -> Found:
    """Every way out tried now, in every jail and without one."""
    if policy.policy(look.home) != policy.REQUIRED:
        return lacks("This site's policy lets jobs run without the jail: cloister airgap policy required.")
    found = selftest.run()
    figures = {"tried": len(found.ways), "blocked": found.blocked, "seen_open": found.seen_open}
    if not found.passed:
        ways = [way.title for way in found.ways if way.result == selftest.OPEN]
        return lacks(f"A way out of the jail of jobs is open: {some(ways)}.", **figures)
    files = jail.holds_files()
    figures["files"] = int(files)
    hole = (
        "" if files else " Left open: this kernel keeps no job from files of its account (Linux 5.19 does)."
    )
    left = f" Not tried: {some(sorted(found.left_out))}." if found.left_out else ""
    return supports(
        f"{count(len(found.ways), 'way')} out tried from the jail that jobs run in: {found.blocked} blocked;"
        f" {found.seen_open} of them were seen open without the jail, so the test can see an open one."
        f" Jobs must run in it.{left}{hole}",
        **figures,
    )


def listeners(look: Look) -> Found:
    """Every port that jobs of this site listen on: this machine only, or TLS 1.3 and nothing older."""
    found = [(host, port, _judge(host, port)) for host, port in sorted(set(_listening(look)))]
    if not found:
        return absent("No endpoint of this site runs now.")
    wrong = [
        f"{host} port {port} ({how})" for host, port, how in found if not how.startswith(("TLS 1.3", "this"))
    ]
    if wrong:
        return lacks(f"Listens in a way that others could read: {some(wrong)}.")
    told = some([f"{host} port {port}: {how}" for host, port, how in found])
    return supports(f"{count(len(found), 'port')} of this site's jobs: {told}.", ports=len(found))


def bundles(look: Look) -> Found:
    """What leaves the building leaves sealed: the suites there are, and what went out."""
    with reading(look.home) as link:
        out = link.execute("SELECT COUNT(*) FROM bundles_out").fetchone()[0]
        came = link.execute("SELECT COUNT(*) FROM bundles_in").fetchone()[0]
    weak = [suite for suite in SUITES if not suite.endswith(("+aes-256-gcm", "+chacha20-poly1305"))]
    if weak or not SUITES:
        return lacks(f"A suite of bundles is no authenticated encryption: {some(weak)}.")
    return supports(
        "What leaves as a bundle is signed (Ed25519) and sealed for its receivers (HPKE with ML-KEM-768 and"
        f" X25519, or X25519 alone; AES-256-GCM or ChaCha20-Poly1305). Out: {out}; in, verified: {came}.",
        suites=list(SUITES),
        out=out,
        came_in=came,
    )


def api_keys(look: Look) -> Found:
    """How old API keys are, and when they end."""
    known = keys.list_keys(look.home)
    live = [key for key in known if key.state(look.now) == "valid"]
    bare = [key.name for key in known if key.state(look.now) == "altered"]
    if bare:
        return lacks(
            f"Not as the audit log says that they were made or ended: {some(bare)}. They open nothing."
        )
    if not live:
        return absent("There is no valid API key.")
    without = [key.name for key in live if key.grant.expires is None]
    long = [key.name for key in live if key.grant.expires and _life(key) > timedelta(days=KEY_DAYS + 1)]
    ages = [(look.now - datetime.fromisoformat(key.created)).days for key in live]
    figures = {"valid": len(live), "oldest_days": max(ages), "without_end": len(without)}
    if without or long:
        told = [f"without an end: {some(without)}"] if without else []
        told += [f"good for more than {KEY_DAYS} days: {some(long)}"] if long else []
        return lacks(f"Of {count(len(live), 'API key')}, {'; '.join(told)}.", **figures)
    return supports(
        f"{count(len(live), 'valid API key')}, each good for at most {KEY_DAYS} days; the oldest is"
        f" {max(ages)} days old. Only their SHA-256 is kept.",
        **figures,
    )


def certificate(look: Look) -> Found:
    """The certificates that clients of an endpoint see."""
    files = {name: look.home.tls / f"{name}.pem" for name in ("ca", "server")}
    if not look.home.tls.exists():
        return absent("No endpoint was ever opened beyond this machine, so there is no certificate.")
    from cryptography import x509

    told, figures = [], {}
    for name, path in files.items():
        found = x509.load_pem_x509_certificate(path.read_bytes())
        figures[name] = found.not_valid_after_utc.date().isoformat()
        if not found.not_valid_before_utc <= look.now <= found.not_valid_after_utc:
            return lacks(
                f"The certificate {name}.pem is not valid now: it ends on {figures[name]}.", **figures
            )
        told.append(f"{name} until {figures[name]}")
    return supports(
        f"Clients know this site by its own authority ({', '.join(told)}). Clients show an API key, not a"
        " certificate of their own.",
        **figures,
    )


def _listening(look: Look) -> Iterator[tuple[str, int]]:
    """Addresses and ports that the processes of this site's jobs listen on now."""
    with reading(look.home) as link:
        rows = link.execute("SELECT pid, pid_started FROM jobs WHERE pid IS NOT NULL").fetchall()
    for row in rows:
        try:
            if not alive(row["pid"], row["pid_started"]):
                continue
            process = psutil.Process(row["pid"])
            for one in (process, *process.children(recursive=True)):
                for link_ in one.net_connections("tcp"):
                    if link_.status == psutil.CONN_LISTEN:
                        yield link_.laddr.ip, link_.laddr.port
        except psutil.NoSuchProcess:
            continue


def _judge(host: str, port: int) -> str:
    """How a port is protected, by speaking to it on this machine."""
    address = ipaddress.ip_address(host)
    if address.is_loopback:
        return "this machine only"
    at = (
        str(ipaddress.ip_address("::1" if address.version == 6 else "127.0.0.1"))
        if address.is_unspecified
        else host
    )
    newest = _shakes_hands(at, port, ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3)
    if not newest:
        return "no TLS 1.3"
    older = _shakes_hands(at, port, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
    return "older TLS is taken too" if older else "TLS 1.3 only"


def _shakes_hands(host: str, port: int, least: ssl.TLSVersion, most: ssl.TLSVersion) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = (
        False,
        ssl.CERT_NONE,
    )  # how it speaks is asked, not who it is
    context.minimum_version, context.maximum_version = least, most
    try:
        with (
            socket.create_connection((host, port), timeout=_PATIENCE) as link,
            context.wrap_socket(link) as secured,
        ):
            return secured.version() is not None
    except OSError:  # ssl.SSLError is one
        return False


def _life(key: keys.Key) -> timedelta:
    made = datetime.fromisoformat(key.created)
    return (key.grant.expires or made) - made


PROBES = {
    "air gap": airgap,
    "listeners": listeners,
    "bundles": bundles,
    "api keys": api_keys,
    "certificate": certificate,
}
