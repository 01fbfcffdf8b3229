"""Slow clients: a header that never ends and an answer that is never read are cut off; others are served."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from appliance.serve.patience import PatientProtocol


class Quick(PatientProtocol):
    header_seconds, read_seconds = 0.3, 0.3


class Flood:
    """Answers without end; knows when its clients are gone."""

    def __init__(self) -> None:
        self.open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.open += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            endless = scope["path"] == "/endless"
            while endless:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                if (await _soon(receive)).get("type") == "http.disconnect":
                    return
            await send({"type": "http.response.body", "body": b"done"})
        finally:
            self.open -= 1


async def _soon(receive: Receive) -> Any:
    try:
        return await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(receive())), 0.001)
    except TimeoutError:
        return {}


@asynccontextmanager
async def running(app: Any) -> AsyncGenerator[int, None]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=Quick, ws="none", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await task


@asynccontextmanager
async def connection(port: int) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter], None]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def ended(reader: asyncio.StreamReader, seconds: float) -> bool:
    try:
        await asyncio.wait_for(reader.read(), seconds)
        return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def test_a_header_must_end() -> None:
    async def trickle(writer: asyncio.StreamWriter) -> None:
        for char in b"GET / HTTP/1.1\r\nx-slow: " + b"y" * 1000:
            writer.write(bytes([char]))
            await asyncio.sleep(0.02)

    async def go() -> None:
        async with (
            running(Flood()) as port,
            connection(port) as (silent, _),
            connection(port) as (reader, writer),
        ):
            slow = asyncio.create_task(trickle(writer))
            assert await ended(reader, 2) and await ended(silent, 2)
            slow.cancel()
        async with running(Flood()) as port, connection(port) as (quick, out):
            out.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"done" in await quick.readuntil(b"done")
            await asyncio.sleep(0.1)
            out.write(b"GET / HT")  # the next header on a kept connection counts too
            assert await ended(quick, 2)

    asyncio.run(go())


def test_a_body_that_goes_on_after_the_answer_is_not_read() -> None:
    async def go() -> None:
        async with running(Flood()) as port, connection(port) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000000\r\n\r\n")
            assert b"done" in await reader.readuntil(b"done")

            async def pour() -> None:
                while True:
                    writer.write(b"x" * 4096)
                    await writer.drain()
                    await asyncio.sleep(0.01)

            pouring = asyncio.create_task(pour())
            assert await ended(reader, 3)
            pouring.cancel()
            await asyncio.wait([pouring])

    asyncio.run(go())


def test_an_answer_must_be_read() -> None:
    async def go() -> None:
        app = Flood()
        async with running(app) as port:
            stuck = socket.create_connection(("127.0.0.1", port))
            stuck.sendall(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
            for _ in range(100):
                await asyncio.sleep(0.05)
                if app.open == 0:
                    break
            assert app.open == 0
            stuck.close()
            # Who reads on, however long the answer, is left alone.
            async with connection(port) as (reader, writer):
                writer.write(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
                until = asyncio.get_running_loop().time() + 1.0
                while asyncio.get_running_loop().time() < until:
                    assert await reader.read(65536)

    asyncio.run(go())
