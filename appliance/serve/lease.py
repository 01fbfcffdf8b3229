"""A read lease on a file: while it is held, nobody has the file open for writing (fcntl(2), F_SETLEASE).

An inode's times tell of write(2). Of a page that somebody has mapped and written before they tell nothing
when it is written again, until the kernel has put it on the disk (in a tmpfs: never). A lease is given
only where no such mapping and no descriptor for writing is there, and taking it away takes an open() for
writing, which waits for the end of the lease, 45 seconds at most, and which the lease then tells of.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path

from appliance.core.errors import EngineFailed


class Lease:
    """The lease on the file at `path`, until `close`.

    Where the file system has none, or the file belongs to another account, it vouches for nothing.

    Raises:
        EngineFailed: somebody has the file open for writing. OSError: it cannot be opened.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._given = False
        try:
            # The kernel's own choice, SIGIO, ends a process that does not wait for it; this one is ignored.
            fcntl.fcntl(self._handle, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(self._handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            self._given = True
        except OSError as problem:
            if problem.errno == errno.EAGAIN:
                self.close()
                raise EngineFailed(
                    f"The file of {name} is open for writing in another program; what is read now may differ"
                    " from what was checked.",
                    f"See which one it is: fuser -v {path.resolve()}",
                ) from problem

    @property
    def broken(self) -> bool:
        """Whether somebody has opened the file for writing, or wants to, since the lease was given."""
        return self._given and fcntl.fcntl(self._handle, fcntl.F_GETLEASE) != fcntl.F_RDLCK

    def close(self) -> None:
        """Let writers in; a second call does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
