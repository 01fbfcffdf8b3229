"""What a child process prints, in a private file, without what users sent to it.

Until the child is ready it may say anything. Afterwards llama-server prints, for instance, the
grammar of a JSON schema that it does not take: then only time, level and place of its lines are
kept, and what its assertions and devices say.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from pathlib import Path

_LIMIT = 1 << 20  # bytes; a longer log begins anew with the next child
_LONGEST_LINE = 1 << 12
_PLACE = re.compile(rb"[\d.]+ [EWI] +[\w()]+( +[\w()]+)?(?=:)")
_OWN = re.compile(rb"ggml_\w+: .*|CUDA error.*|\S+:\d+: GGML_ASSERT\(.*\) failed|terminate called .*")


class ChildLog:
    """The log at `path`. `quiet` says that users' requests reach the child."""

    def __init__(self, path: Path) -> None:
        self.quiet = False
        self._path = path
        self._copying: asyncio.Task[None] | None = None

    def follow(self, output: asyncio.StreamReader) -> None:
        """Copy what comes from a new child, until it ends."""
        self.quiet = False
        self._copying = asyncio.create_task(self._copy(output))

    async def ended(self) -> None:
        """Return when all that an ended child said has been copied."""
        if self._copying is not None:
            await asyncio.wait([self._copying], timeout=2)

    def tail(self) -> str:
        """The last three lines in one."""
        with contextlib.suppress(OSError):
            lines = self._path.read_text(errors="replace").strip().splitlines()
            return " | ".join(line.strip() for line in lines[-3:])
        return "no log"

    async def _copy(self, output: asyncio.StreamReader) -> None:
        grown = self._path.exists() and self._path.stat().st_size > _LIMIT
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if grown else os.O_APPEND)
        left, rest = _LIMIT, b""
        with os.fdopen(os.open(self._path, flags, 0o600), "wb", buffering=0) as log:
            while chunk := await output.read(1 << 16):
                *lines, rest = (rest + chunk).split(b"\n")
                kept = b"".join(line + b"\n" for line in map(self._kept, lines) if line)
                rest = rest[:_LONGEST_LINE]
                if kept and len(kept) <= left:
                    left -= len(kept)
                    with contextlib.suppress(OSError):  # the disk is full: the child must not wait for it
                        log.write(kept)

    def _kept(self, line: bytes) -> bytes:
        if not self.quiet:
            return line[:_LONGEST_LINE]
        found = _PLACE.match(line) or _OWN.match(line)
        return found[0][:_LONGEST_LINE] if found else b""
