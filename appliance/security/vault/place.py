"""Where the key agent of a home listens, and how to ask it."""

from __future__ import annotations

import errno
import hashlib
import os
import select
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

from appliance.core.errors import ConfigWrong
from appliance.core.sealing import Locked
from appliance.security import canonical

LONGEST_LINE = 1 << 21
_SO_PEERPIDFD = 77  # asm-generic/socket.h, Linux 6.5; Python has no name for it
_LONGEST_PATH = 107  # bytes of a unix socket's path on Linux


def socket_path(root: Path, *, make: bool = False) -> Path:
    """The socket of the agent of the home in `root`: in it, or elsewhere when that path is too long.

    Raises:
        ConfigWrong: the folder is somebody else's or open to others.
    """
    path = root.absolute() / "run" / "agent.sock"
    if len(os.fsencode(path)) > _LONGEST_PATH:
        known = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:16]
        base = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/cloister-{os.getuid()}"  # noqa: S108
        path = Path(base) / f"cloister-{known}" / "agent.sock"
    folder = path.parent
    if make:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    with suppress(FileNotFoundError):
        for each in (folder, folder.parent) if folder.parent != root.absolute() else (folder,):
            held = each.lstat()
            if held.st_uid != os.getuid() or held.st_mode & 0o022 or not each.is_dir():
                raise ConfigWrong(f"{each} belongs to somebody else.", "Remove it, or use another --home.")
    return path


def ask(root: Path, what: str, **values: Any) -> dict[str, Any]:
    """What the agent of the home in `root` answers to `what`.

    Raises:
        Locked: there is none, so the site is locked. ConfigWrong: it refuses.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(10)
            link.connect(str(socket_path(root)))
            _check_peer(link)
            link.sendall(canonical.encode({"do": what, **values}) + b"\n")
            content = b""
            while not content.endswith(b"\n"):
                part = link.recv(1 << 16)
                if not part or len(content) > LONGEST_LINE:
                    raise Locked
                content += part
            told = canonical.decode(content[:-1])
    except (OSError, ValueError):
        raise Locked from None
    if not isinstance(told, dict):
        raise Locked
    if "refused" in told:
        raise ConfigWrong(
            f"The key agent refuses: {told['refused']}.", "Sign in with `cloister unlock --as NAME`."
        )
    return told


def running(root: Path) -> bool:
    """Whether the site is unlocked."""
    try:
        ask(root, "status")
    except (Locked, ConfigWrong):
        return False
    return True


def peer_ended(link: socket.socket) -> bool:
    """Whether the process behind a unix socket has ended: its number may be another's by now.

    Kernels before 6.5 cannot tell.

    Raises:
        OSError: the kernel knows that it has.
    """
    try:
        handle = link.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as problem:
        if problem.errno != errno.ENOPROTOOPT:
            raise
        return False
    try:
        return bool(select.select([handle], [], [], 0)[0])  # pidfd_open(2): readable once it has ended
    finally:
        os.close(handle)


def _check_peer(link: socket.socket) -> None:
    """Check who listens: another account, or a job, would be handed signing keys.

    A jail is never left, so what is in one has more seccomp filters than the face that asks. The agent was
    started by a face.

    Raises:
        Locked: it is not the agent.
    """
    pid, uid, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid != os.getuid() or _filters(str(pid)) > _filters("self") or peer_ended(link):
        raise Locked


def _filters(pid: str) -> int:
    """Seccomp filters on a process; before Linux 5.9, whether there are any. 0 for one that /proc hides."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    told = dict(line.split(":", 1) for line in lines if line.startswith("Seccomp"))
    return int(told.get("Seccomp_filters", told.get("Seccomp", "0")))


def leader(session: int) -> str:
    """When the leader of a session began; "" if it has ended, and for 0: all sessions from outside."""
    try:
        words = Path(f"/proc/{session}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if words[0] in ("Z", "X") else words[19]  # proc(5): ended, and not yet waited for; starttime
