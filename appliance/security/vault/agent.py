"""The process that holds the master key between `unlock` and `lock`: python -m appliance.security.vault.agent

It answers on a unix socket, to processes of the same account only (SO_PEERCRED): one line of canonical JSON
asked, one answered. It gives the keys of the stores, never the master, with which it only has the slots
follow the signed list of people (following.py); a person's signing key comes in once and never goes out: it
signs here, for the terminal session that signed in. When no person has asked for anything for `minutes`, it
ends; its end is the lock. Jobs hold store keys of their own and go on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core.errors import ApplianceError
from appliance.core.home import Home
from appliance.security import canonical
from appliance.security.vault.keys import StoreKeys, store_keys, unwrap_seed
from appliance.security.vault.opened import sweep
from appliance.security.vault.place import LONGEST_LINE, leader, peer_ended, socket_path

_PR_SET_DUMPABLE, _MCL_CURRENT, _MCL_FUTURE = 4, 1, 2
_PATIENCE = 2.0  # seconds for one caller: another waits meanwhile
_MOST_SIGNED = 1 << 19  # bytes


@dataclass(kw_only=True)
class Held:
    """What the agent knows. `people` is by terminal session: who signed in there, their key, and when the
    session's leader began."""

    home: Home
    master: bytes = field(repr=False)
    keys: StoreKeys
    minutes: float
    people: dict[int, tuple[str, Ed25519PrivateKey, str]] = field(default_factory=dict)
    locked_memory: bool = False
    since: float = field(default_factory=time.monotonic)
    used: float = field(default_factory=time.monotonic)
    over: bool = False

    def idle(self) -> float:
        """Seconds since a person asked for something."""
        return time.monotonic() - self.used


def answer(held: Held, asked: dict[str, Any], session: int) -> dict[str, Any]:
    """What to answer to a process of the terminal session `session`.

    Raises:
        ValueError, KeyError, TypeError: it asks for nothing that there is. ApplianceError: it cannot be done.
    """
    what = asked["do"]
    if what == "keys":
        if asked.get("person") is True:
            held.used = time.monotonic()
        return {"keys": held.keys.to_json()}
    if what == "status":
        return {
            "since": int(time.monotonic() - held.since),
            "idle": int(held.idle()),
            "limit": int(held.minutes * 60),
            "people": sorted({name for name, _, _ in held.people.values()}),
            "locked_memory": held.locked_memory,
            "whole": held.keys.whole,
        }
    if what == "who":
        return {"name": held.people[session][0] if session in held.people else ""}
    if what == "lock":
        held.over = True
        return {}
    held.used = time.monotonic()
    if what == "touch":
        return {}
    if what in ("hold", "follow"):
        return _slots(held, asked)
    if what == "sign_in":
        if not (began := leader(session)):
            return {"refused": "this command does not run in a terminal session that can be told from others"}
        name, seed = str(asked["name"]), str(asked["signing"])
        if asked["sealed"] is True:
            bound = {"name": name, "session": session, "began": began}
            secret = unwrap_seed(held.master, seed, vault=held.keys.vault, bound=bound)
        else:
            secret = bytes.fromhex(seed)
        held.people[session] = (name, Ed25519PrivateKey.from_private_bytes(secret), began)
        return {}
    if what == "sign_out":
        held.people.pop(session, None)
        return {}
    if what == "sign":
        if session not in held.people:
            return {"refused": "nobody has signed in on this terminal"}
        payload = bytes.fromhex(asked["payload"])
        if len(payload) > _MOST_SIGNED:
            raise ValueError("too long")
        name, key, _ = held.people[session]
        return {"name": name, "signature": key.sign(payload).hex()}
    raise ValueError("nothing that there is")


def _slots(held: Held, asked: dict[str, Any]) -> dict[str, Any]:
    from appliance.security.vault import following

    if asked["do"] == "hold":
        first, seed = bytes.fromhex(asked["first"]), bytes.fromhex(asked["signing"])
        return {"held": following.hold(held.home, held.master, asked["head"], first, seed)}
    told = following.follow(held.home, held.master, asked["held"])
    return {"added": list(told.added), "removed": list(told.removed)}


def serve(held: Held, listener: socket.socket) -> None:
    """Answer until somebody locks, or nobody was there for the idle time."""
    listener.settimeout(None)
    while not held.over:
        left = held.minutes * 60 - held.idle()
        if left <= 0:
            return
        ready, _, _ = select.select([listener], [], [], min(left, 5.0))
        _forget_ended(held)
        if not ready:
            continue
        link, _ = listener.accept()
        with link:
            try:
                _talk(held, link)
            except (OSError, ValueError, KeyError, TypeError):
                continue  # a caller that went away, or that does not speak this: the next one counts


def _talk(held: Held, link: socket.socket) -> None:
    link.settimeout(_PATIENCE)
    pid, uid, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid != os.getuid():
        return
    session, limit = _session(link, pid), time.monotonic() + _PATIENCE
    content = b""
    while not content.endswith(b"\n"):
        part = link.recv(1 << 16)
        content += part
        if not part or len(content) > LONGEST_LINE or time.monotonic() > limit:
            return
    asked = canonical.decode(content[:-1])
    _forget_ended(held)
    try:
        told = answer(held, asked, session)
    except (ValueError, KeyError, TypeError):
        told = {"refused": "this cannot be asked"}
    except ApplianceError as problem:
        told = {"refused": problem.message.rstrip(".")}
    link.sendall(canonical.encode(told) + b"\n")


def _session(link: socket.socket, pid: int) -> int:
    """The terminal session of the process `pid` that connected; 0 for one from outside this container.

    A process may connect, give the socket away and end; its number then goes to a process of another session.

    Raises:
        OSError: it has ended. Kernels before 6.5 cannot tell.
    """
    session = os.getsid(pid) if pid else 0
    if peer_ended(link):
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return session


def _forget_ended(held: Held) -> None:
    """A session whose leader has ended may have its number given to another."""
    for session, (_, _, began) in list(held.people.items()):
        if leader(session) != began:
            del held.people[session]


def protect() -> bool:
    """No core, no debugger, and, where the limits of the account allow it, no swap; returns that last."""
    libc = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard == resource.RLIM_INFINITY and soft != hard:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    if hard != resource.RLIM_INFINITY and os.geteuid() != 0:
        return False  # with a small limit the next allocation would fail and end the agent
    return bool(libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) == 0)


def main() -> int:
    """Read what to hold from stdin, say "ready", serve."""
    os.umask(0o077)
    locked = protect()
    order = canonical.decode(sys.stdin.buffer.readline(LONGEST_LINE).rstrip(b"\n"))
    home, master = Home(path=Path(sys.argv[1])), bytes.fromhex(order["master"])
    keys = store_keys(master, vault=order["vault"], epoch=order["epoch"], whole=order["whole"])
    held = Held(home=home, master=master, keys=keys, minutes=order["seconds"] / 60, locked_memory=locked)
    del order
    path = socket_path(home.path, make=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(64)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for number in (0, 1, 2):  # the terminal that started it must be able to close
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        serve(held, listener)
    finally:
        path.unlink(missing_ok=True)
        sweep()  # nobody may unlock again to have it done
    return 0


if __name__ == "__main__":
    sys.exit(main())
