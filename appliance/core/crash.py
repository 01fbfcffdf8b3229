"""What a process says when it goes wrong: where it was and what kind of fault it was, never a value.

The message of an exception, a warning or a library's log line may quote what was being worked on (`KeyError`
and `int()` do). Only errors of our own speak: their messages are written to hold no record text.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from appliance.core.errors import ApplianceError

OURS = frozenset({"appliance", "federated", "quantize", "tui"})
"""Packages whose log lines are shown as they are."""

_PR_SET_DUMPABLE = 4
_DEEPEST = 20  # exceptions that led to each other


def trace(problem: BaseException) -> str:
    """The stacks of `problem` and of what led to it, as Python prints them, without foreign messages."""
    found: list[str] = []
    left: BaseException | None = problem
    seen: set[int] = set()
    while left is not None and id(left) not in seen and len(seen) < _DEEPEST:
        seen.add(id(left))
        stack = traceback.StackSummary.extract(traceback.walk_tb(left.__traceback__))
        found.append("".join(["Traceback (most recent call last):\n", *stack.format(), f"{kind(left)}\n"]))
        if isinstance(left, BaseExceptionGroup):
            found[-1] += "".join(f"  with {kind(each)}\n" for each in left.exceptions)
        left = left.__cause__ or (None if left.__suppress_context__ else left.__context__)
    return "\nled to:\n".join(reversed(found))


def kind(problem: BaseException) -> str:
    """An exception in one line: its type, and its words where they cannot be a record's."""
    name = type(problem).__name__
    if isinstance(problem, ApplianceError):
        return f"{name}: {problem.message}"
    if isinstance(problem, OSError) and problem.errno is not None:
        return f"{name}: {os.strerror(problem.errno)}"
    return name


def say_no_words() -> None:
    """Have this process end, warn and log as this module says, and leave no core."""
    no_core()
    sys.excepthook = _ended
    threading.excepthook = lambda told: _told(f"in thread {told.thread and told.thread.name}", told.exc_value)
    sys.unraisablehook = lambda told: _told("not raised", told.exc_value)
    warnings.showwarning = _warned
    if logging.getLogRecordFactory() is not _record:
        logging.setLogRecordFactory(_record)


def no_core() -> None:
    """No core file of this process or of what it starts, by any crash.

    A limit of 1 and not 0: Linux hands a core to a program (`|` in core_pattern) whatever the limit is,
    except at 1 (fs/coredump.c); to a file it writes nothing that is under a page.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    least = 1 if most else 0
    resource.setrlimit(resource.RLIMIT_CORE, (least, least))


def no_readers() -> None:
    """No other process of this account may read this one's memory or take what it has open; ends with exec.

    PR_SET_DUMPABLE, prctl(2). Root still may.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _told(how: str, problem: BaseException | None) -> None:
    if problem is not None and not isinstance(problem, SystemExit):
        _write(f"An error {how}:\n{trace(problem)}")


def _ended(name: type[BaseException], problem: BaseException, stack: TracebackType | None) -> None:
    _write("\n" if isinstance(problem, KeyboardInterrupt) else trace(problem.with_traceback(stack)))


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _write(f"{filename}:{lineno}: {category.__name__}\n")


def _record(
    name: str,
    level: int,
    path: str,
    line: int,
    message: Any,
    words: Any,
    problem: Any,
    *more: Any,
    **rest: Any,
) -> logging.LogRecord:
    """A log line: others' without their words, and any exception as `trace` has it."""
    if name.partition(".")[0] not in OURS:
        message, words = f"{name} said something at {Path(path).name}, line {line}.", ()
    if isinstance(problem, tuple) and problem[1] is not None:
        message, words = f"{_formatted(message, words)}\n{trace(problem[1])}", ()
    return _plain(name, level, path, line, message, words, None, *more, **rest)


def _formatted(message: Any, words: Any) -> str:
    return str(message) % words if words else str(message)


def _write(text: str) -> None:
    if sys.stderr is not None:  # as under pythonw, or where it was closed
        sys.stderr.write(text)
        sys.stderr.flush()


_plain: Callable[..., logging.LogRecord] = logging.LogRecord
