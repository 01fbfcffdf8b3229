"""Starts a program so that no other process of the account can look into it, from its first moment on.

A job is shut to readers, but exec opens a process again, and llama-server holds model, prompts and the
descriptors of plain files in memory. Linux keeps it shut if the account may not read the program's file
(fs/exec.c, would_dump: "enforce non-dump"); so a copy in memory is run that may be executed and nothing else.
Whoever may read every file, as root, is not kept out.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ELF, _EXECUTE_ONLY = b"\x7fELF", 0o111


@contextmanager
def unreadable(program: Path) -> Iterator[int]:
    """A descriptor of a copy of `program`, which a child runs as /proc/self/fd/N.

    Raises:
        OSError: it cannot be read, is a script, or this system makes no such file.
    """
    content = program.read_bytes()
    if not content.startswith(_ELF):  # what runs a script would have to read it
        raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC))
    copy = os.memfd_create(program.name[:200], os.MFD_CLOEXEC)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(copy, left) :]
        os.fchmod(copy, _EXECUTE_ONLY)
        handle = os.open(f"/proc/self/fd/{copy}", os.O_PATH | os.O_CLOEXEC)  # one to write to cannot be run
    finally:
        os.close(copy)
    try:
        yield handle
    finally:
        os.close(handle)
