"""Wrong passphrases, counted in home/vault-tries.json so that a restart does not forget them.

The fourth wrong one costs 5 seconds, each further one twice as long, up to 15 minutes. A try is written down
before its passphrase is stretched, so that killing it saves nothing. Who can write the home can delete the
file: against them stands the cost of Argon2id alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from appliance.core.errors import Busy
from appliance.core.files import write_private
from appliance.security.vault.slots import PassphraseWrong

_FILE, _LOCK = "vault-tries.json", "vault-tries.lock"
_FREE, _FIRST, _LONGEST = 3, 5.0, 900.0


class LockedOut(Busy):
    """Too many wrong passphrases: wait."""

    code = "locked-out"


@contextmanager
def attempt(root: Path, *, clock: Callable[[], float] = time.time) -> Iterator[None]:
    """One try at a passphrase; PassphraseWrong leaving the block counts, anything else forgives.

    Raises:
        LockedOut: it is too early after wrong ones. Busy: another try goes on.
    """
    handle = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Busy("Somebody else is unlocking this site.", "Try again in a moment.") from None
        wrong, last = _read(root)
        wait = last + pause(wrong) - clock()
        if 0 < wait <= _LONGEST:  # a clock that was set back must not lock the owner out for years
            raise LockedOut(
                f"{wrong} wrong passphrases: the next try is in {wait:.0f} seconds.",
                "Wait; recovery shares open the site too (`cloister vault recover`).",
            )
        _write(root, wrong + 1, clock())
        try:
            yield
        except PassphraseWrong:
            _write(root, wrong + 1, clock())
            raise
        except BaseException:
            _write(root, wrong, last)
            raise
        _write(root, 0, 0.0)
    finally:
        os.close(handle)


def pause(wrong: int) -> float:
    """Seconds to wait after so many wrong passphrases in a row."""
    return 0.0 if wrong < _FREE else min(_LONGEST, _FIRST * 2.0 ** min(wrong - _FREE, 20))


def _read(root: Path) -> tuple[int, float]:
    with suppress(OSError, ValueError, KeyError, TypeError):
        held = json.loads((root / _FILE).read_bytes())
        return max(0, int(held["wrong"])), float(held["last"])
    return 0, 0.0


def _write(root: Path, wrong: int, last: float) -> None:
    write_private(root / _FILE, json.dumps({"wrong": wrong, "last": last}).encode())
