"""A call of a site to its gateway: whether it is there, lets this site in, and what time it is there.

The preflight tells it in words; while rounds run, the link asks what is wrong and tells a code (words.py).

Flower refuses a site whose clock is more than 5 s ahead of the coordinator's or 305 s behind it, and does not
say so (1.41: the node tries for ever), so the limits here are a little closer.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509

from federated.description import Federation
from federated.flower.gateway import CLOCK
from federated.flower.relay import client_context
from federated.place import Place

AHEAD, BEHIND = 4.0, 300.0
_PATIENCE = 5.0
_WRONG_HOST, _EXPIRED, _EARLY = 62, 10, 9  # X509_V_ERR_* of OpenSSL
T = TypeVar("T")


def ask_clock(federation: Federation, place: Place, made: Callable[..., T]) -> list[T]:
    """The checks "gateway", "admission" and "clock", as far as they can be made."""
    host, _, port = federation.gateway.rpartition(":")

    def said(name: str, cause: str, next_: str) -> T:
        return made(name=name, good=False, cause=cause, next=next_, stops="start")

    try:
        trust = client_context(place.pki / "ca.crt", place.pki / "site.pem", place.pki / "site.key")
    except (OSError, ssl.SSLError):
        return [
            said(
                "gateway", "certificate and key of this site do not belong together", "Enrol this site anew."
            )
        ]
    try:
        offset = _offset(host, int(port), trust)
    except ssl.SSLCertVerificationError as problem:
        return [said("gateway", *_unverified(problem, federation))]
    except (ssl.SSLError, ConnectionResetError, http.client.HTTPException):
        return [
            said(
                "gateway",
                f"{federation.gateway} ended the call: it does not know this site's certificate, or it is no"
                " gateway",
                "Check the address; if it is right, ask the coordinator for a new kit.",
            )
        ]
    except (TimeoutError, socket.gaierror, OSError) as problem:
        why = "no answer" if isinstance(problem, TimeoutError) else (problem.strerror or "").lower()
        return [
            said(
                "gateway",
                f"the coordinator is not reachable at {federation.gateway} ({why})",
                "Check address, firewall and whether it runs there: cloister federate start.",
            )
        ]
    there = made(name="gateway", good=True, found=federation.gateway, stops="start")
    if offset is None:
        return [
            there,
            said(
                "admission",
                "the gateway refuses this site: it was dropped, or has a newer kit",
                "Call the coordinator.",
            ),
        ]
    good = -BEHIND <= offset <= AHEAD
    way = "ahead of" if offset > 0 else "behind"
    found = f"{abs(offset):.1f} s {way} the coordinator"
    return [
        there,
        made(name="admission", good=True, found="the gateway lets this site in", stops="start"),
        made(name="clock", good=True, found=found, stops="start")
        if good
        else said(
            "clock",
            f"this machine's clock is {found}",
            f"Set the clock: at most {AHEAD:.0f} s ahead and {BEHIND:.0f} s behind are let in.",
        ),
    ]


def trouble(pki: Path, gateway: str) -> str | None:
    """The code of what keeps the site with these certificates from its gateway (host:port), if anything."""
    host, _, port = gateway.rpartition(":")
    try:
        own = x509.load_pem_x509_certificate((pki / "site.pem").read_bytes())
        if datetime.now(UTC) >= own.not_valid_after_utc:
            return "expired"
        offset = _offset(host, int(port), client_context(pki / "ca.crt", pki / "site.pem", pki / "site.key"))
    except ssl.SSLCertVerificationError as problem:
        return "gateway-expired" if problem.verify_code == _EXPIRED else "other-gateway"
    except (ssl.SSLError, ConnectionResetError, http.client.HTTPException) as problem:
        return "expired" if "EXPIRED" in str(getattr(problem, "reason", "")) else "turned-away"
    except (OSError, ValueError):
        return "unreachable"
    if offset is None:
        return "not-in"
    return "clock-ahead" if offset > AHEAD else "clock-behind" if offset < -BEHIND else None


def _offset(host: str, port: int, trust: ssl.SSLContext) -> float | None:
    """How far this machine's clock is ahead of the gateway's, in seconds; None where it lets nobody in."""
    line = http.client.HTTPSConnection(host, port, timeout=_PATIENCE, context=trust)
    try:
        begun = time.time()
        line.request("GET", CLOCK)
        reply = line.getresponse()
        content = reply.read(1 << 16)
        ended = time.time()
    finally:
        line.close()
    return (begun + ended) / 2 - float(json.loads(content)["time"]) if reply.status == 200 else None


def _unverified(problem: ssl.SSLCertVerificationError, federation: Federation) -> tuple[str, str]:
    if problem.verify_code == _WRONG_HOST:
        host = federation.gateway.rpartition(":")[0]
        return f"the gateway's certificate is not for {host}", "The coordinator makes one with that name."
    if problem.verify_code == _EXPIRED:
        return "the gateway's certificate has expired", "The coordinator makes a new federation."
    if problem.verify_code == _EARLY:
        return "the gateway's certificate is not valid yet", "Set this machine's clock."
    return (
        f"what answers at {federation.gateway} has no certificate of this federation's authority",
        "Check the address and what stands in between: nothing may open the TLS.",
    )
