"""Documents are read in a child process, because they may be made to break whoever reads them.

The child gets open files, never paths, one after the other over a socket. It may not write files, and
memory, processor time and wall time of each file are limited. One that breaks it is reported by reason,
and the next file meets a new child.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from appliance.core.crash import no_core, no_readers
from appliance.core.offline import ENVIRONMENT
from appliance.core.parent import die_with_parent
from appliance.serve.documents.texts import Page, Unreadable

MOST_BYTES = 64 << 20  # of one file
_ROOT = Path(__file__).resolve().parents[3]
_MOST_REPLY = 256 << 20
_LENGTH = struct.Struct("!Q")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one file may cost: address space of the child in bytes, seconds of waiting and of work."""

    memory: int = 1 << 30
    seconds: int = 60


class Reader:
    """The child, started when it is first needed; use it in a `with` block.

    Start it from a thread that lasts: the child ends with that thread.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._child: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def read(self, handle: int, kind: str) -> tuple[str, list[Page]]:
        """SHA-256 and pages of the open file `handle`, both of the very same bytes.

        Raises:
            Unreadable: it gives no text, or broke the child.
        """
        link = self._started()
        ends = time.monotonic() + self.limits.seconds
        try:
            socket.send_fds(link, [json.dumps({"kind": kind}).encode()], [handle])
            (size,) = _LENGTH.unpack(_receive(link, _LENGTH.size, ends))
            if size > _MOST_REPLY:
                raise EOFError
            told = json.loads(_receive(link, size, ends))
            if "reason" in told:
                raise Unreadable(str(told["reason"]))
            return str(told["sha256"]), [_page(page) for page in told["pages"]]
        except TimeoutError:
            self.close()
            raise Unreadable(f"takes longer than {self.limits.seconds} s to read") from None
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            reason = self._why()
            self.close()
            raise Unreadable(reason) from None

    def _started(self) -> socket.socket:
        if self._child is not None and self._socket is not None and self._child.poll() is None:
            return self._socket
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
            words = [theirs.fileno(), os.getpid(), self.limits.memory, self.limits.seconds]
            self._child = subprocess.Popen(
                [sys.executable, "-B", "-m", "appliance.serve.documents.child", *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what libraries say may quote the file
                env={**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)},
                pass_fds=[theirs.fileno()],
            )
        self._socket = ours
        return ours

    def _why(self) -> str:
        """What ended the child."""
        if self._child is None:
            return "could not be read"
        try:
            code = self._child.wait(1)
        except subprocess.TimeoutExpired:
            return "gave an answer that cannot be read"
        if code == -signal.SIGXCPU:
            return f"takes longer than {self.limits.seconds} s to read"
        if code == _NO_MEMORY:
            return f"needs more than {self.limits.memory >> 20} MB of memory to read"
        return "broke the program that reads it"


def _receive(link: socket.socket, size: int, ends: float) -> bytes:
    found = bytearray()
    while len(found) < size:
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        link.settimeout(left)
        part = link.recv(min(1 << 20, size - len(found)))
        if not part:
            raise EOFError
        found += part
    return bytes(found)


def _page(told: dict[str, Any]) -> Page:
    headings = tuple((int(at), str(title)) for at, title in told["headings"])
    return Page(number=told["number"], text=str(told["text"]), headings=headings)


# --- the child's side

_NO_MEMORY = 77


def main(channel: int, parent: int, memory: int, seconds: int) -> int:
    """Answer requests until the parent goes away."""
    from appliance.serve.documents.reading import read_document

    if not die_with_parent(parent):
        return 1
    no_core()
    no_readers()
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with socket.socket(fileno=channel) as link:
        while True:
            order, handles, _, _ = socket.recv_fds(link, 4096, 1)
            if not order:
                return 0
            used = resource.getrusage(resource.RUSAGE_SELF)
            limit = int(used.ru_utime + used.ru_stime) + seconds + 1
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
            try:
                with os.fdopen(handles[0], "rb") as stream:
                    content = stream.read(MOST_BYTES + 1)
                if len(content) > MOST_BYTES:
                    raise Unreadable(f"larger than {MOST_BYTES >> 20} MB")
                pages = read_document(json.loads(order)["kind"], content)
                told: dict[str, Any] = {
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "pages": [asdict(page) for page in pages],
                }
                reply = json.dumps(told, ensure_ascii=False).encode()
                told.clear()
            except MemoryError:
                return _NO_MEMORY
            except Unreadable as problem:
                reply = json.dumps({"reason": problem.reason}).encode()
            except OSError:
                reply = json.dumps({"reason": "an input error while it was read"}).encode()
            link.sendall(_LENGTH.pack(len(reply)))
            link.sendall(reply)


if __name__ == "__main__":
    sys.exit(main(*(int(word) for word in sys.argv[1:5])))
