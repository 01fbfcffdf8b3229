"""A child that ends with its parent, also when that is killed with -9 (Linux: prctl(2), PR_SET_PDEATHSIG)."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def die_with_parent(parent: int) -> bool:
    """Have the kernel kill this process when its parent ends; False if `parent` has ended before.

    Ends when the thread of the parent that started this process does, so start children from one that
    lasts. Allocates nothing, so that it may run between fork and exec.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent
