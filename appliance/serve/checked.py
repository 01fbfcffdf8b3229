"""Model files whose bytes are the registered ones, each time that an engine reads them.

A file is opened once and hashed and loaded by way of that descriptor (/proc/self/fd/N), so that one put
in its place is never served. Whoever writes into the file itself is found out at the next start: the
hash is of what is there then, and from before the hash to after the load a lease keeps writers out
(lease.py). Where a lease cannot be had, the inode's times tell of writes, but not of those by way of a
mapping. What is written under a running engine, which may have the file mapped, is found out when it is
started again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, nullcontext
from pathlib import Path

from appliance.core.errors import EngineFailed, ModelChanged, NotFound
from appliance.core.sealing import place
from appliance.models.registry import Model
from appliance.serve.lease import Lease

Loading = Callable[[], AbstractAsyncContextManager[None]]
unchecked: Loading = nullcontext  # for files that nobody has registered
_Mark = tuple[int, int, int]


class CheckedFile:
    """The open file of `model`, whose bytes were the registered ones when it was opened.

    `look` reads the file while it is vouched for: what it finds is of the registered bytes.

    Raises:
        NotFound: the file is gone. ModelChanged: its SHA-256 differs. EngineFailed: as `check` and `lease`.
    """

    def __init__(self, model: Model, look: Callable[[Path], object] = lambda path: None) -> None:
        self._model, self._refused = model, (-1, -1, -1)
        self._sealed = place(model.path) is not None
        try:
            self._handle = _opened(model.path)
        except OSError as problem:
            raise NotFound(
                f"The file of {model.name} cannot be read: {problem.strerror}.",
                "Quantise or import it again.",
            ) from problem
        try:
            with ExitStack() as held:
                lease = _until_end(self.lease(), held)
                mark = self.check()
                look(self.path)
                self.unchanged(mark, lease)
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """Where this process, and a child that inherits the descriptor, finds the very file."""
        return Path(f"/proc/self/fd/{self._handle}")

    def check(self) -> _Mark:
        """Hash the file; gives what `unchanged` wants to know afterwards. Waits for the disk.

        Raises:
            ModelChanged: the hash differs; said again without hashing for as long as nobody writes.
            EngineFailed: it cannot be read now.
        """
        mark = self._mark()
        if mark != self._refused:
            try:
                # A descriptor of its own: the place in the file is shared with nobody.
                with self.path.open("rb") as stream:
                    found = hashlib.file_digest(stream, "sha256").hexdigest()
            except OSError as problem:
                raise self._unreadable(problem) from problem
            if found == self._model.sha256:
                return mark
            self._refused = mark
        raise self._changed()

    def lease(self) -> Lease | None:
        """What keeps writers out until it is closed; none for a sealed file, whose copy nobody can write.

        Raises:
            EngineFailed: somebody has the file open for writing, or it cannot be opened now.
        """
        if self._sealed:
            return None
        try:
            return Lease(self.path, self._model.name)
        except OSError as problem:
            raise self._unreadable(problem) from problem

    def unchanged(self, mark: _Mark, lease: Lease | None = None) -> None:
        """Check that nobody has written since `check` began.

        Raises:
            ModelChanged: somebody has.
        """
        if self._mark() != mark or (lease is not None and lease.broken):
            raise self._changed()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._handle)

    def _mark(self) -> _Mark:
        # The time of the inode's change cannot be set back, unlike that of the contents.
        found = os.fstat(self._handle)
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _unreadable(self, problem: OSError) -> EngineFailed:
        return EngineFailed(
            f"The file of {self._model.name} cannot be read: {problem.strerror}.",
            "See whether its disk is whole, and how many open files this account may have (ulimit -n).",
        )

    def _changed(self) -> ModelChanged:
        return ModelChanged(
            f"The file of {self._model.name} has changed since it was registered: its SHA-256 differs.",
            "Do not use it. Quantise the model again, or import it again.",
        )


def _until_end(lease: Lease | None, held: ExitStack) -> Lease | None:
    if lease is not None:
        held.callback(lease.close)
    return lease


def _opened(path: Path) -> int:
    """The file itself, or where it is sealed an anonymous one in memory with its plain bytes."""
    if place(path) is None:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    from appliance.security.vault.opened import memory_file

    return memory_file(path)


def loading(files: Sequence[CheckedFile]) -> Loading:
    """What an engine loads `files` within: they are hashed before, and compared again after.

    The block raises ModelChanged before or after its work, and EngineFailed before; after it the engine
    must be ended.
    """

    @asynccontextmanager
    async def block() -> AsyncIterator[None]:
        with ExitStack() as held:
            leases = [_until_end(file.lease(), held) for file in files]
            marks = [await asyncio.to_thread(file.check) for file in files]
            yield
            for file, mark, lease in zip(files, marks, leases, strict=True):
                file.unchanged(mark, lease)

    return block
