"""A clock that a test moves for the processes it starts: their whole C library tells another time."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """Moves the clock of what runs with `environment`, whenever `set` is called."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("no C compiler, to move a clock with")
        library, self._file = folder / "clock.so", folder / "clock"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"], check=True)
        self._file.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(library), "CLOISTER_CLOCK": str(self._file)}

    def set(self, seconds: int) -> None:
        """Seconds ahead of this machine's clock."""
        with self._file.open("r+b") as stream:
            stream.write(struct.pack("@l", seconds))
