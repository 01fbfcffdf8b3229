"""A streaming client so light that it does not weigh on what it measures, for /v1/chat/completions.

Bytes are kept as they come with the time of the first text; they are read only when all is over.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.endpoints import Server

_TEXT = re.compile(rb'"content": ?"[^"]')


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer: seconds from the request to the first text and to the end, tokens read and written."""

    first: float
    whole: float
    prompt_tokens: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """What some clients at once got: `rate` is tokens a second of all, `cpu` seconds of the server."""

    answers: tuple[Answer, ...]
    rate: float
    cpu: float

    @property
    def tokens(self) -> int:
        """Tokens of all answers."""
        return sum(answer.tokens for answer in self.answers)


def crowd(server: Server, clients: Sequence[Sequence[Any]], settings: dict[str, Any]) -> Crowd:
    """Each client asks its conversations (lists of messages) one after the other; all begin at once."""

    async def one(conversations: Sequence[Any]) -> list[Answer]:
        return [await _ask(server, messages, settings) for messages in conversations]

    async def all_of_them() -> list[list[Answer]]:
        return await asyncio.gather(*(one(conversations) for conversations in clients))

    cpu, began = _cpu(server), time.perf_counter()
    answers = tuple(answer for found in asyncio.run(all_of_them()) for answer in found)
    passed = time.perf_counter() - began
    return Crowd(answers=answers, rate=sum(each.tokens for each in answers) / passed, cpu=_cpu(server) - cpu)


def _cpu(server: Server) -> float:
    used = server.process.cpu_times()
    return float(used.user + used.system)


async def _ask(server: Server, messages: Any, settings: dict[str, Any]) -> Answer:
    body = json.dumps(
        {
            "model": server.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            **settings,
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n"
        f"Authorization: Bearer {server.key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head.encode() + body)
    found, first = bytearray(), 0.0
    while chunk := await reader.read(1 << 16):
        found += chunk
        if not first and _TEXT.search(found):
            first = time.perf_counter() - began
    whole = time.perf_counter() - began
    writer.close()
    events = _events(bytes(found))
    usage = next((event["usage"] for event in reversed(events) if event.get("usage")), {})
    choices = [choice for event in events for choice in event["choices"]]
    spoken = sum(bool((choice.get("delta") or {}).get("content")) for choice in choices)
    if any(choice.get("finish_reason") == "length" for choice in choices):
        spoken = settings.get("max_tokens", spoken)  # a token that is half a letter shows no text
    return Answer(
        first=first or whole,
        whole=whole,
        prompt_tokens=usage.get("prompt_tokens", 0),
        tokens=usage.get("completion_tokens", spoken),
    )


def _events(raw: bytes) -> list[dict[str, Any]]:
    """The events of a whole answer; an answer cut short is no measurement."""
    head, _, body = raw.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0] + b" " or b"[DONE]" not in body:
        raise SystemExit(f"no whole answer: {raw[:400]!r} ... {raw[-200:]!r}")
    if b"chunked" in head.lower():
        body = _dechunked(body)
    lines = [line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def _dechunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        parts.append(rest[:length])
        body = rest[length + 2 :] if length else b""
    return b"".join(parts)
