"""A small HTTP relay: what the gateway and a site's sidecar have in common (aiohttp)."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web

LARGEST_BODY = 16 << 20
_PASSED = {"content-type", "accept", "user-agent"}
_SESSION = web.AppKey("session", ClientSession)
Check = Callable[[web.Request], Awaitable[str | None]]


def relay(
    target: str,
    trust: ssl.SSLContext,
    check: Check,
    told: Callable[[web.Request, str], None],
    own: Callable[[web.Request], web.Response | None] = lambda request: None,
) -> web.Application:
    """An application that passes on to `target` (https://host:port) what `check` has nothing against.

    `check` gives the reason of a refusal, which is told and answered with 403 and no word about why. What
    `own` answers is answered here.
    """

    async def session(app: web.Application):  # type: ignore[no-untyped-def]
        connector = TCPConnector(ssl=trust, limit=0)
        timeout = ClientTimeout(total=None, connect=10, sock_read=120)
        app[_SESSION] = ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        yield
        await app[_SESSION].close()

    async def handle(request: web.Request) -> web.Response:
        if reason := await check(request):
            told(request, reason)
            return web.Response(status=403, text="refused")
        if (answer := own(request)) is not None:
            return answer
        body = await request.read()
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() in _PASSED or name.lower().startswith("flwr-")
        }
        try:
            async with request.app[_SESSION].request(
                request.method, target + request.path, data=body, headers=headers, allow_redirects=False
            ) as reply:
                content = await reply.read()
                kept = {
                    name: value
                    for name, value in reply.headers.items()
                    if name.lower() in _PASSED or name.lower().startswith("flwr-")
                }
                return web.Response(status=reply.status, body=content, headers=kept)
        except (ClientError, OSError, TimeoutError):
            told(request, "unreachable")
            return web.Response(status=503, text="unreachable")

    app = web.Application(client_max_size=LARGEST_BODY)
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", handle)
    return app


def client_context(
    authority: Path, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """TLS 1.3 towards a server that `authority` vouches for, with one's own certificate if there is one."""
    context = ssl.create_default_context(cafile=str(authority))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if certificate and key:
        context.load_cert_chain(certificate, key)
    return context


def server_context(certificate: Path, key: Path, clients: Path | None = None) -> ssl.SSLContext:
    """TLS 1.3 of a server; with `clients` only who has a certificate of that authority gets through."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    if clients:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
