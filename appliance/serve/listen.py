"""The port of the endpoint: bound once, before anything is loaded, so that two cannot race for it."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import psutil

from appliance.core.errors import ApplianceError, Busy, ConfigWrong

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8080
_TRIED = 50  # ports looked at for a suggestion


def open_port(
    host: str, port: int, *, tls: bool, holder: Callable[[int], str | None] = lambda port: None
) -> socket.socket:
    """A listening socket on `host` and `port` (0: any free one). Clients that come early wait in it.

    `holder` gives the job of ours that has a port, if one has it.

    Raises:
        ConfigWrong: the address is not one of this machine, or lies beyond loopback without TLS.
        Busy: somebody else has the port.
    """
    try:
        if not 0 <= port < 65536:
            raise OverflowError(port)
        numbers = "127.0.0.1" if host == "localhost" else host  # no name is ever looked up
        found = socket.getaddrinfo(numbers, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        family, _, _, _, address = found[0]
    except (OSError, UnicodeError, OverflowError) as problem:
        raise ConfigWrong(
            f"{host}:{port} is not an address and port.", "Give --host as numbers, such as 127.0.0.1."
        ) from problem
    if not tls and not ipaddress.ip_address(address[0]).is_loopback:
        raise ConfigWrong(
            f"{host} can be reached from other machines, and keys would cross the network in the clear.",
            "Give --tls-cert and --tls-key, or use --host 127.0.0.1.",
        )
    try:
        return _listen(family, address)
    except OSError as problem:
        raise _explained(problem, family, address, holder) from problem


def is_loopback(host: str) -> bool:
    """Whether `host` (an address in numbers, or localhost) is this machine alone.

    Raises:
        ConfigWrong: it is no address.
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise ConfigWrong(
            f"{host} is not an address.", "Give --host as numbers, such as 127.0.0.1."
        ) from None


def is_here(name: str) -> bool:
    """Whether a certificate's name means this machine only to itself."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def url_of(listener: socket.socket, *, tls: bool, name: str = "") -> str:
    """The address of the endpoint on `listener`; the API is below /v1.

    `name` stands for "all addresses of this machine", which is nothing that a client can ask for.
    """
    host, port = listener.getsockname()[:2]
    if name and ipaddress.ip_address(host).is_unspecified:
        host = name
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def check_tls(certificate: Path, key: Path) -> None:
    """Check that a certificate chain and its key can be used.

    Raises:
        ConfigWrong: they cannot.
    """
    for path in (certificate, key):
        if not path.is_file():
            raise ConfigWrong(
                f"{path} cannot be used for TLS: there is no such file.",
                "Give --tls-cert and --tls-key PEM files that belong together.",
            )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as problem:
        raise ConfigWrong(
            f"The TLS certificate or its key cannot be used: {problem.strerror or problem}.",
            "Both must be PEM files that belong together and that this account may read.",
        ) from problem


def _listen(family: int, address: tuple[object, ...]) -> socket.socket:
    # asyncio turns Nagle's delay (40 ms an answer) off only where the protocol is named.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Without this a port stays taken for a minute after its last connection.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def _explained(
    problem: OSError, family: int, address: tuple[object, ...], holder: Callable[[int], str | None]
) -> ApplianceError:
    host, port = str(address[0]), int(str(address[1]))
    if problem.errno == errno.EADDRINUSE:
        free = _next_free(family, address, port)
        other = f"use --port {free}" if free else "use another --port"
        if job := holder(port):
            return Busy(
                f"Port {port} on {host} is taken: job {job} serves there.",
                f"Stop it with `cloister job stop {job}`, or {other}.",
            )
        return Busy(f"Port {port} on {host} is taken by another program.", f"Stop that, or {other}.")
    if problem.errno == errno.EACCES:
        return ConfigWrong(f"This account may not open port {port}.", "Use a --port above 1023.")
    if problem.errno == errno.EADDRNOTAVAIL:
        every = "::" if family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104 -- words only
        return ConfigWrong(
            f"This machine has no address {host}.",
            f"Its own are {', '.join(_own(family))}. For all of them: --host {every}",
        )
    return ConfigWrong(f"{host}:{port} cannot be opened: {problem.strerror}.", "Use --host 127.0.0.1.")


def _own(family: int) -> list[str]:
    """This machine's addresses, without those that mean something on one interface only."""
    every = [entry for entries in psutil.net_if_addrs().values() for entry in entries]
    found = {entry.address for entry in every if entry.family == family and "%" not in entry.address}
    return sorted(found, key=ipaddress.ip_address)


def _next_free(family: int, address: tuple[object, ...], port: int) -> int | None:
    for other in range(port + 1, min(port + _TRIED, 65536)):
        try:
            _listen(family, (address[0], other, *address[2:])).close()
        except OSError:
            continue
        return other
    return None
