"""Mutual TLS on the SuperLink's own port: only the processes of this link get in.

    python -m federated.flower.door FOLDER -- arguments of flower-superlink

Flower's port on loopback carries the control interface, which asks nobody who they are: any program of the
machine could start a run at every site. Here the server wants a client certificate of an authority that is
made at each start and lies in a folder of this account. It reaches into names that Flower does not promise
(1.41); tests/federated/test_links.py fails when they go.
"""

from __future__ import annotations

import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from federated import pki
from federated.flower.relay import client_context


def make(folder: Path) -> None:
    """A fresh authority, with one certificate for the server and one for its callers."""
    place, now, root = folder / "door", datetime.now(UTC), pki.new_key()
    place.mkdir(mode=0o700, exist_ok=True)
    authority = pki.authority(root, "door", now=now, days=365)
    server, caller = pki.new_key(), pki.new_key()
    served = pki.server_certificate(authority, root, server.public_key(), ["127.0.0.1"], now=now, days=365)
    called = pki.site_certificate(authority, root, pki.request(caller, "door"), "door", now=now, days=365)
    for name, content in (
        ("ca.crt", pki.pem(authority)),
        ("server.pem", pki.pem(served)),
        ("server.key", pki.key_pem(server)),
        ("caller.pem", pki.pem(called)),
        ("caller.key", pki.key_pem(caller)),
    ):
        (place / name).touch(mode=0o600)
        (place / name).write_bytes(content)


def caller(folder: Path) -> ssl.SSLContext:
    """What a caller shows, and whom it believes."""
    place = folder / "door"
    return client_context(place / "ca.crt", place / "caller.pem", place / "caller.key")


def show(folder: Path) -> None:
    """Have all of Flower's clients in this process show the caller's certificate."""
    from flwr.supercore.protobuf.client import ProtobufClient

    begin, context = ProtobufClient.__init__, caller(folder)

    def shown(self: Any, base_url: str, **rest: Any) -> None:
        begin(self, base_url, **(rest | {"verify": context}))

    setattr(ProtobufClient, "__init__", shown)  # noqa: B010


def main() -> None:
    """Run the SuperLink with the arguments after "--"."""
    from importlib import import_module

    import uvicorn

    link: Any = import_module("flwr.superlink.cli.flower_superlink")

    ca = str(Path(sys.argv[1]) / "door" / "ca.crt")

    def run(**settings: Any) -> None:
        uvicorn.run(**settings, ssl_cert_reqs=ssl.CERT_REQUIRED, ssl_ca_certs=ca)

    link.uvicorn = SimpleNamespace(run=run)
    sys.argv = ["flower-superlink", *sys.argv[3:]]
    link.flower_superlink()


if __name__ == "__main__":
    main()
