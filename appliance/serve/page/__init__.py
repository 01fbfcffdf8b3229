"""The web page of the endpoint: its files, served as they are, with nothing from elsewhere.

The page holds no data and needs no key; it asks for one and sends it with each request of its own.
"""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FOLDER = Path(__file__).parent
_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "turn.js": "text/javascript; charset=utf-8",
}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


def page_routes() -> list[Route]:
    """GET / and the files under /page that it names; they are read once, now."""
    return [_route("/" if name == "index.html" else f"/page/{name}", name) for name in _TYPES]


def _route(path: str, name: str) -> Route:
    content = (_FOLDER / name).read_bytes()

    async def serve(request: Request) -> Response:
        return Response(content, media_type=_TYPES[name], headers=HEADERS)

    return Route(path, serve, methods=["GET"])
