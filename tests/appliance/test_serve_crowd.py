"""A thousand slow clients at once: silent ones, some that dribble a request, some that sip an answer."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import serve_support as support

from appliance.ops import jobs
from appliance.serve import client

_SILENT, _DRIBBLING, _SIPPING = 250, 250, 500
_GROWTH = 8 << 20  # bytes that a second crowd may leave behind
_SETTLED = 20.0  # seconds


@pytest.mark.soak
def test_a_thousand_slow_clients_leave_nothing_behind(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        home = support.new_home(tmp_path / "home", labels=False)
        with support.endpoint(home, threads=1, slots=8) as (job, url, key):
            gateway, server = support.processes(job)
            _normal(url, key)
            quiet = gateway.num_fds()
            rounds = []
            for _ in range(2):
                statuses, took, most = asyncio.run(_crowd(url, key, gateway))
                assert most >= quiet + _SIPPING, "the crowd was never there"
                assert statuses[200] + statuses[429] == _SIPPING, statuses
                assert statuses[200] >= _SIPPING // 2, statuses
                assert took < 10, f"a request beside the crowd took {took:.1f} s"
                support.until(lambda: gateway.num_fds() <= quiet + 4, _SETTLED)
                _normal(url, key)
                rounds.append(gateway.memory_info().rss)
            assert rounds[1] - rounds[0] < _GROWTH, rounds
            assert gateway.is_running() and server.is_running()
            support.until(lambda: jobs.view(home, job.id).last["active"] == 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _normal(url: str, key: str) -> None:
    """A request like any other, answered."""
    messages = [{"role": "user", "content": f"hello {time.monotonic_ns()}"}]
    assert client.ask(url, key, support.NAME, messages, max_tokens=4).finish in ("stop", "length")


async def _crowd(url: str, key: str, gateway: psutil.Process) -> tuple[Counter[int], float, int]:
    """The statuses that the sipping clients saw, seconds of a normal request beside all, open files then."""
    host, port = url.removeprefix("http://").rsplit(":", 1)
    done, answered = asyncio.Event(), asyncio.Semaphore(0)
    settings: dict[str, Any] = {"temperature": 2.0, "max_tokens": 40, "stream": True}
    body = json.dumps(
        {"model": support.NAME, "messages": [{"role": "user", "content": "hi"}], **settings}
    ).encode()
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body

    async def opened() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        return await asyncio.open_connection(sock=sock, limit=1024)

    async def silent() -> int:
        _, writer = await opened()
        await done.wait()
        writer.transport.abort()
        return 0

    async def dribbling() -> int:
        reader, writer = await opened()
        for byte in request:
            if done.is_set() or reader.at_eof():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.5)
        writer.transport.abort()
        return 0

    async def sipping() -> int:
        reader, writer = await opened()
        writer.write(request)
        status = int((await reader.readline()).split()[1])
        answered.release()
        while not done.is_set() and await reader.read(1):
            await asyncio.sleep(0.5)
        writer.transport.abort()
        return status

    kinds = [silent] * _SILENT + [dribbling] * _DRIBBLING + [sipping] * _SIPPING
    tasks = [asyncio.create_task(kind()) for kind in kinds]
    for _ in range(_SIPPING):
        await asyncio.wait_for(answered.acquire(), 120)
    most, began = gateway.num_fds(), time.monotonic()
    await asyncio.to_thread(_normal, url, key)
    took = time.monotonic() - began
    done.set()
    return Counter(await asyncio.gather(*tasks)), took, most
