"""What the air-gap tests share: a small interpreter of classic BPF, and children that run in a jail."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_HEAD = """
import ctypes, errno, json, os, socket, struct, sys, threading
from appliance.security.airgap import filter as rules, jail, kernel
from appliance.security.airgap.filter import LISTEN, LOOPBACK, NONE, PROFILES, SERVE, SITE
from appliance.security.airgap.jail import enter, jailed
def number(what, *words):
    try:
        made = what(*words)
    except OSError as problem:
        return problem.errno
    return 0
def tell(**found):
    print(json.dumps(found))
"""


def run_filter(program: Sequence[tuple[int, int, int, int]], call: int, *arguments: int, arch: int) -> int:
    """What a seccomp filter returns for a call: the machine of linux/filter.h, as far as filters need it."""
    words = [value & (2**64 - 1) for value in (*arguments, *[0] * (6 - len(arguments)))]
    data = struct.pack(
        "<iIQ6Q", struct.unpack("<i", struct.pack("<I", call & 0xFFFFFFFF))[0], arch, 0, *words
    )
    at, held = 0, 0
    while True:
        code, yes, no, value = program[at]
        at += 1
        if code == 0x20:
            assert value % 4 == 0 and value < len(data)
            held = struct.unpack_from("<I", data, value)[0]
        elif code == 0x54:
            held &= value
        elif code in (0x15, 0x35, 0x45):
            true = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[code]
            at += yes if true else no
        elif code == 0x06:
            return value
        else:
            raise AssertionError(f"unknown instruction {code:#x}")


def in_child(code: str, *, before: str = "", files: Sequence[int] = (), user: int | None = None) -> Any:
    """What `code` tells with tell(...), in a process of its own; `before` runs first."""
    done = subprocess.run(
        [sys.executable, "-c", _HEAD + before + "\n" + code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        pass_fds=files,
        user=user,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
