"""Exports and verifies a file of so many MB that takes no disk: `bundle_memory.py FOLDER MB`; prints its
peak memory in MiB."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bundle_support as b

from appliance.security.bundle.reading import verify
from appliance.security.bundle.writing import file_source


def peak() -> int:
    """Peak resident memory so far, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()  # getrusage counts the parent's peak, too
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10


folder, size = Path(sys.argv[1]), int(sys.argv[2]) << 20
with (folder / "model.gguf").open("wb") as stream:
    os.truncate(stream.fileno(), size)
b.bundle(folder / "x.clb", [file_source(folder / "model.gguf", "model.gguf", "")])
verify(folder / "x.clb", b.EDGE, b.trust())
sys.stdout.write(str(peak()))
