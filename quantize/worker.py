"""Calls a function in a child process: a crash or a hang there becomes a typed error here.

llama.cpp answers some bad files with an abort. Every call into it on a file that is not proven
goes through `start`. The child dies with its parent, leaves no core file, and has limits: wall time and
what it may write, watched by the parent; processor time and memory, held by the kernel. It is in the
strictest jail, also where the parent is in none: no network, no way to the key agent, which would sign
for the person at this terminal, and no files but those that it is there to write. It gets no key of a sealed
home: what it opens is a plain copy in memory, which its parent made (core.reading.local).
"""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from appliance.core import errors
from appliance.core.crash import say_no_words
from appliance.core.errors import ApplianceError, EngineFailed, JailRefused
from appliance.core.files import write_json
from appliance.core.offline import ENVIRONMENT
from appliance.core.parent import die_with_parent
from appliance.core.sealing import KEYS
from appliance.security.airgap.filter import NONE
from appliance.security.airgap.jail import enter
from appliance.security.airgap.places import everywhere

_ROOT = Path(__file__).resolve().parent.parent
_MOST_OUTPUT, _MOST_RESULT = 50_000_000, 500_000_000  # bytes of log and of answer
_TAIL = 4000
_QUIET = {"GGML_NO_BACKTRACE": "1"}  # else llama.cpp starts a debugger, where there is one, when it aborts
_AGAIN = "Copy the file again from its source; if that does not help, this version cannot use it."


class Child:
    """A call under way in a process of its own."""

    def __init__(self, call: dict[str, Any], doing: str, timeout: float, place: Path | None) -> None:
        self.doing, self.timeout = doing, timeout
        self._folder = tempfile.TemporaryDirectory(prefix="cloister-", dir=place)
        folder = Path(self._folder.name)
        quiet = {**_QUIET, "TMPDIR": str(folder)}
        write_json(folder / "call.json", {**call, "parent": os.getpid(), "doing": doing, "timeout": timeout})
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, **ENVIRONMENT, **quiet, "PYTHONPATH": os.pathsep.join(paths)}
        environment.pop(KEYS, None)
        with (folder / "output.txt").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "quantize.worker", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
            )
        self._ends = time.monotonic() + timeout

    def result(self, watch: Callable[[], None] | None = None) -> Any:
        """Wait for the call's return value; `watch` is called about twice a second.

        Raises:
            ApplianceError: the one that the function raised.
            EngineFailed: the child crashed, went beyond a limit, or gave no answer.
        """
        try:
            while self._process.poll() is None:
                left = self._ends - time.monotonic()
                if left <= 0:
                    raise self._failed(f"took longer than {self.timeout:.0f} s and was stopped")
                if self._output.stat().st_size > _MOST_OUTPUT:
                    raise self._failed("wrote without end and was stopped")
                try:
                    self._process.wait(min(left, 0.5))
                except subprocess.TimeoutExpired:
                    if watch:
                        watch()
            return self._outcome()
        finally:
            self.close()

    @property
    def _output(self) -> Path:
        return Path(self._folder.name) / "output.txt"

    def _failed(self, how: str) -> EngineFailed:
        return EngineFailed(f"{self.doing} {how}.", _AGAIN)

    def _outcome(self) -> Any:
        code = self._process.returncode
        answer = Path(self._folder.name) / ("result.json" if code == 0 else "error.json")
        if answer.exists():
            try:
                if answer.stat().st_size > _MOST_RESULT:
                    raise ValueError("too long")
                told = json.loads(answer.read_bytes())
                failure = _error(told) if code else None
            except (ValueError, TypeError, KeyError, RecursionError) as problem:
                raise self._failed("gave an answer that cannot be read") from problem
            if failure:
                raise failure
            return told
        if code == -signal.SIGXCPU:
            raise self._failed("used up its processor time and was stopped")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise self._failed(f"crashed ({how}): {_last_words(self._output)}")

    def close(self) -> None:
        """End the child if it still runs, and remove its folder."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


def start(
    function: Callable[..., Any],
    /,
    *,
    doing: str,
    timeout: float = 1800,
    memory: int | None = None,
    place: Path | None = None,
    writes: Sequence[Path] = (),
    **arguments: Any,
) -> Child:
    """Begin `function(**arguments)` in a child; `doing` names it in errors.

    `function` stands at the top of a module; arguments and result are JSON. `timeout` bounds its wall
    time, in seconds, and its processor time on all cores; `memory` its address space, in bytes. What the
    two tell each other lies in a folder that is removed at the end: in `place`, else in the system's /tmp.
    The child writes there, and in the folders `writes`, and nowhere else if the kernel can hold it to that.
    """
    named = {"module": function.__module__, "function": function.__name__, "writes": list(map(str, writes))}
    return Child({**named, "arguments": arguments, "memory": memory}, doing, timeout, place)


def run(function: Callable[..., Any], /, **arguments: Any) -> Any:
    """`start` and wait. Raises as `Child.result` does."""
    return start(function, **arguments).result()


_DOTS = re.compile(r"\.{4,}")  # llama.cpp's progress; what follows stands in the same line


def _last_words(output: Path) -> str:
    with output.open("rb") as stream:
        stream.seek(max(0, output.stat().st_size - _TAIL))
        said = _DOTS.sub("\n", stream.read(_TAIL).decode("utf-8", "replace")).splitlines()
    return " | ".join([line.strip() for line in said if line.strip()][-3:])[-500:]


def _error(told: dict[str, str]) -> ApplianceError:
    kinds = {kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type)}
    kind = kinds.get(told["kind"], EngineFailed)
    return (
        kind(told["message"], told["hint"]) if issubclass(kind, ApplianceError) else EngineFailed(str(told))
    )


def main(folder: Path) -> int:
    """The child's side: call what call.json names, write result.json or error.json."""
    call = json.loads((folder / "call.json").read_bytes())
    if not die_with_parent(call["parent"]):
        return 1
    say_no_words()
    seconds = math.ceil(call["timeout"] * len(os.sched_getaffinity(0))) + 5
    _limit(resource.RLIMIT_CPU, seconds, spare=5)
    if call["memory"]:
        _limit(resource.RLIMIT_AS, call["memory"])
    try:
        _shut_in([folder, *map(Path, call["writes"])])
        function = getattr(importlib.import_module(call["module"]), call["function"])
        write_json(folder / "result.json", function(**call["arguments"]))
    except ApplianceError as problem:
        told = {"kind": type(problem).__name__, "message": problem.message, "hint": problem.hint}
        write_json(folder / "error.json", told)
        return 1
    except MemoryError:
        told = {"kind": "NoRoom", "message": f"{call['doing']} needs more memory than it may have."}
        write_json(folder / "error.json", {**told, "hint": "Stop other programs, or use a larger machine."})
        return 1
    return 0


def _shut_in(writes: Sequence[Path]) -> None:
    """Enter the jail; without one only where the policy of the site lets jobs run so.

    Raises:
        JailRefused: this machine cannot make it.
    """
    try:
        enter(NONE, keep=(), writes=[*writes, *everywhere()])
    except JailRefused:
        from appliance.core.home import open_home
        from appliance.security.airgap.policy import REQUIRED, policy  # with the database: only where asked

        if policy(open_home()) == REQUIRED:
            raise


def _limit(kind: int, most: int, *, spare: int = 0) -> None:
    """Set a limit and, `spare` above it, the one that kills; a lower one of the system's stays."""
    _, there = resource.getrlimit(kind)
    hard = most + spare if there == resource.RLIM_INFINITY else min(most + spare, there)
    resource.setrlimit(kind, (min(most, hard), hard))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
