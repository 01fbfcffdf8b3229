"""A site's way out: takes Flower's calls on loopback and makes them again with the site's certificate.

    python -m federated.flower.sidecar FOLDER PORT https://GATEWAY:PORT

Flower's SuperNode cannot show a client certificate and insists on TLS, so this stands between it and the
gateway. It connects to that one address only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from aiohttp import web

from federated.flower.relay import client_context, relay, server_context


def main() -> None:
    """Serve until ended."""
    folder, port, gateway = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    pki = folder / "pki"

    async def check(request: web.Request) -> str | None:
        return None if request.path.startswith("/v1/fleet/") else "verb"

    def told(request: web.Request, reason: str) -> None:
        print(json.dumps({"refused": reason, "path": request.path[:80]}), flush=True)  # noqa: T201

    trust = client_context(pki / "ca.crt", pki / "site.pem", pki / "site.key")
    context = server_context(pki / "loopback.pem", pki / "loopback.key")
    web.run_app(
        relay(gateway, trust, check, told),
        host="127.0.0.1",
        port=port,
        ssl_context=context,
        print=None,
        access_log=None,
    )


if __name__ == "__main__":
    main()
