"""The one port that is open to sites: mutual TLS, Fleet verbs only, each certificate bound to its node key.

    python -m federated.flower.gateway FOLDER HOST PORT LINK_PORT

Flower's own port carries its control interface as well, without any authentication, so it stays on loopback
and this stands in front. A caller needs a certificate of the federation's authority that the signed agreement
names for a site that is in, and the node key of that same site in every request. Refusals are printed as JSON
lines for the supervisor; the caller learns nothing from them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from federated import description
from federated.description import Federation, Site
from federated.flower import door
from federated.flower.relay import LARGEST_BODY, relay, server_context

VERBS = (
    "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages", "get-run",
    "get-fab", "push-object", "pull-object", "confirm-message-received",
)  # fmt: skip
CLOCK = "/clock"
"""What a site's preflight asks for: the coordinator's time, in seconds. Only the certificate is looked at."""
_AHEAD, _BEHIND = 5.0, 305.0  # Flower's
PER_SECOND, BURST = 100.0, 400.0  # requests of one site


@dataclass
class Allowed:
    """How many requests a site has left now."""

    since: float
    left: float = BURST

    def take(self, now: float) -> bool:
        """Use one up; False where none is left."""
        self.left = min(BURST, self.left + (now - self.since) * PER_SECOND)
        self.since = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass
class Doorman:
    """Who may pass, by the newest signed agreement in `folder`."""

    folder: Path
    allowed: dict[str, Allowed] = field(default_factory=dict)
    _read: tuple[int, Federation] | None = None

    def federation(self) -> Federation:
        """The agreement, read again when the file changed."""
        path = self.folder / "agreement.toml"
        stamp = path.stat().st_mtime_ns
        if self._read is None or self._read[0] != stamp:
            self._read = (stamp, description.parsed(path.read_bytes()))
        return self._read[1]

    def site(self, certificate: bytes) -> Site | None:
        """Whose certificate (DER) it is."""
        print_of = hashlib.sha256(certificate).hexdigest()
        return next((one for one in self.federation().sites if one.certificate == print_of), None)

    def reason(self, path: str, method: str, certificate: bytes | None, node: str | None) -> str | None:
        """Why a request may not pass; None where it may. `certificate` is DER, `node` Flower's header."""
        if certificate is None:
            return "certificate"
        site = self.site(certificate)
        if site is None:
            return "unknown-certificate"
        if site.state != "in":
            return site.state
        now = time.monotonic()
        if (method, path) == ("GET", CLOCK):
            return None if self.allowed.setdefault(site.name, Allowed(since=now)).take(now) else "rate"
        if method != "POST" or path not in {f"/v1/fleet/{verb}" for verb in VERBS}:
            return "verb"
        if node is None or openssh(node) != site.node:
            return "node-key"
        return None if self.allowed.setdefault(site.name, Allowed(since=now)).take(now) else "rate"


def openssh(header: str) -> str | None:
    """The node key of Flower's header (base64 of PEM) in OpenSSH form; None where it is no key."""
    try:
        key = load_pem_public_key(base64.b64decode(header, validate=True))
        return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    except (ValueError, TypeError, binascii.Error):
        return None


def clock(signed: str | None, now: float) -> str | None:
    """The code of a node's clock that is too far off for Flower, by the time it signed."""
    try:
        age = now - datetime.fromisoformat(signed or "").timestamp()
    except ValueError:
        return None
    return "clock-ahead" if age < -_AHEAD else "clock-behind" if age > _BEHIND else None


def _certificate(request: web.Request) -> bytes | None:
    """The caller's, DER; None where the call has ended."""
    tls = request.transport.get_extra_info("ssl_object") if request.transport else None
    return tls.getpeercert(binary_form=True) if tls else None


def application(folder: Path, link_port: int) -> web.Application:
    """The gateway in front of a SuperLink on 127.0.0.1:`link_port`."""
    doorman = Doorman(folder=folder)

    async def check(request: web.Request) -> str | None:
        if (request.content_length or 0) > LARGEST_BODY:
            return "size"
        node = request.headers.get("flwr-public-key")
        reason = doorman.reason(request.path, request.method, _certificate(request), node)
        if reason is None and (wrong := clock(request.headers.get("flwr-timestamp"), time.time())):
            told(request, wrong)  # the SuperLink refuses it, and says so to nobody
        return reason

    def told(request: web.Request, reason: str) -> None:
        certificate = _certificate(request)
        site = doorman.site(certificate) if certificate else None
        line = {
            "refused": reason,
            "site": site.name if site else None,
            "from": request.remote,
            "path": request.path[:80],
        }
        print(json.dumps(line), flush=True)  # noqa: T201

    def own(request: web.Request) -> web.Response | None:
        return web.json_response({"time": time.time()}) if request.path == CLOCK else None

    return relay(f"https://127.0.0.1:{link_port}", door.caller(folder), check, told, own)


def main() -> None:
    """Serve until ended."""
    folder, host, port, link_port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    pki = folder / "pki"
    context = server_context(pki / "server.pem", pki / "server.key", pki / "ca.crt")
    web.run_app(
        application(folder, link_port), host=host, port=port, ssl_context=context, print=None, access_log=None
    )


if __name__ == "__main__":
    main()
