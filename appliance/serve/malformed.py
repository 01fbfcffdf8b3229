"""Bytes that are no HTTP request get an error in OpenAI's shape too, where uvicorn would send plain text."""

from __future__ import annotations

import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_BODY = json.dumps(
    {
        "error": {
            "message": "This is not a valid HTTP request.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
    }
).encode()
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_BODY)).encode()),
    (b"connection", b"close"),
]


class AnsweringProtocol(H11Protocol):
    """uvicorn's HTTP/1.1; what h11 cannot read is answered and the connection closed."""

    def send_400_response(self, msg: str) -> None:
        """In place of uvicorn's; `msg` is its own text and says nothing more."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()  # an answer is under way: a second one would be read as part of it
            return
        parts = (
            h11.Response(status_code=400, headers=_HEADERS, reason=b"Bad Request"),
            h11.Data(data=_BODY),
            h11.EndOfMessage(),
        )
        for part in parts:
            self.transport.write(self.conn.send(part) or b"")
        self.transport.close()
