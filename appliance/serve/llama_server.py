"""A llama-server of ours: supervised, on a socket only we can reach, asleep while nobody asks."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from appliance.core.errors import ConfigWrong
from appliance.core.files import work_folder
from appliance.core.sealing import place
from appliance.serve.checked import Loading, unchecked
from appliance.serve.idle import Idle
from appliance.serve.supervisor import Supervisor
from appliance.serve.wire import Lost, Wire, lost

_LONGEST_PATH = 100  # of a unix socket: 107 bytes on Linux


class LlamaServer:
    """llama-server with the argv that `argv(socket)` gives; `files` of it may be /proc/self/fd paths;
    every start, also out of sleep and after a crash, is within `loading()` (checked.py).

    After `sleep_after` seconds without a request the process ends, so that neither RAM nor a GPU
    keeps anything of it; the next request starts it again. `memory` limits its data, in bytes.
    """

    def __init__(
        self,
        argv: Callable[[Path], Sequence[str]],
        *,
        folder: Path,
        files: Sequence[Path],
        loading: Loading = unchecked,
        memory: int | None = None,
        sleep_after: float | None = None,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder, self.place = folder, _socket_folder(folder)
        socket, key = self.place / "engine.sock", secrets.token_urlsafe(32)
        self.wire = Wire(socket, key)
        words = argv(socket)
        self.process = Supervisor(
            words,
            environment={**clean_environment(), **_libraries(Path(words[0])), "LLAMA_API_KEY": key},
            log_path=folder / "llama-server.log",
            answers=self.wire.healthy,
            clear=lambda: socket.unlink(missing_ok=True),  # left by kill -9, it would stop the bind
            files=[int(path.name) for path in files if path.parent == Path("/proc/self/fd")],
            loading=loading,
            memory=memory,
            log=log,
        )
        self.idle = Idle(sleep_after, sleep=self._sleep, wake=self.process.start)

    async def start(self) -> None:
        """Start it and return when it answers.

        Raises:
            EngineFailed: it does not. ModelChanged: its files are not the registered ones.
        """
        await self.process.start()
        self.idle.begin()

    def healthy(self) -> bool:
        """Whether a request made now would be answered; a sleeping server would be woken."""
        return self.idle.asleep or self.process.ready.is_set()

    async def stop(self) -> None:
        """End it and remove its socket's folder."""
        await self.idle.end()
        await self.process.stop()
        await self.wire.close()
        if self.place != self.folder:
            shutil.rmtree(self.place, ignore_errors=True)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request, made twice if need be: the first may have met a dying server.

        Raises:
            EngineFailed: no answer, or a refusal. ConfigWrong: the JSON schema is refused.
        """
        for last_try in (False, True):
            await self.process.until_ready()
            try:
                return await self.wire.post(path, body)
            except Lost as problem:
                if last_try:
                    raise lost() from problem
            await asyncio.sleep(0.05)
        raise AssertionError

    def memory(self) -> int:
        """Resident bytes of the process; 0 while there is none."""
        try:
            return int(psutil.Process(self.process.pid).memory_info().rss) if self.process.pid else 0
        except psutil.NoSuchProcess:
            return 0

    async def _sleep(self) -> None:
        await self.process.stop()
        await self.wire.close()


def common_flags(binary: Path, model: Path, socket: Path, *, threads: int) -> list[str]:
    """The part of the argv that every server of ours has."""
    return [
        str(binary),
        *("--model", str(model), "--host", str(socket), "--threads", str(threads)),
        # By default 8 GiB of past prompts stay in memory, and each request is logged.
        *("--cache-ram", "0", "--no-slots", "--log-verbosity", "1"),
        *("--offline", "--no-ui", "--no-agent", "--cors-origins", "localhost"),
        *(("--n-gpu-layers", "999") if devices(binary) else ()),
    ]


def clean_environment() -> dict[str, str]:
    """A LLAMA_ARG_... of the operator's shell would change our argv behind our back."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")}


def _libraries(binary: Path) -> dict[str, str]:
    """Where its libraries lie, for a copy of it that lies elsewhere (unreadable.py)."""
    there = [str(binary.parent.parent / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    return {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, there))}


@cache
def devices(binary: Path) -> tuple[str, ...]:
    """The GPUs that this build can use here, in llama.cpp's words, such as "CUDA0: NVIDIA L4"."""
    try:
        said = subprocess.run(
            [binary, "--list-devices"],
            capture_output=True,
            text=True,
            env=clean_environment(),
            timeout=60,
            check=False,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return read_devices(said)


def read_devices(said: str) -> tuple[str, ...]:
    """The GPUs in what `llama-server --list-devices` prints; a BLAS library is none."""
    listed = said.partition("Available devices:")[2].splitlines()
    found = [re.sub(r" \([\d, MiBfree]+\)$", "", line.strip()) for line in listed if ": " in line]
    return tuple(device for device in found if not device.startswith(("BLAS", "CPU")))


def joined(paths: Sequence[Path]) -> str:
    """Paths as one llama.cpp argument, which separates them by commas.

    Raises:
        ConfigWrong: a path has a comma itself.
    """
    if any("," in str(path) for path in paths):
        raise ConfigWrong("A path of an adapter has a comma in it.", "Rename the file or its folder.")
    return ",".join(map(str, paths))


def _socket_folder(folder: Path) -> Path:
    """A folder of ours (0700) whose path is short enough for a socket."""
    folder.chmod(0o700)
    if place(folder / "engine.sock"):  # slots that are saved there hold what was asked
        return work_folder(folder / "slots")
    if len(os.fsencode(folder / "engine.sock")) <= _LONGEST_PATH:
        return folder
    return Path(tempfile.mkdtemp(prefix="cloister-"))
