"""On the PYTHONPATH of a process, this breaks it as the variable CANARY_FAULT says, words apart.

`crash`: cleaning fails on a record, which it also warns of, logs and loses in a thread. `kill`: SIGKILL when
a dataset is about to be published. `talk` and `plain` take a control away: crash traces without words; work
folders in memory.
"""

from __future__ import annotations

import os
import sys

_FAULTS = os.environ.get("CANARY_FAULT", "").split()


def _crash() -> None:
    import asyncio
    import logging
    import threading
    import warnings

    from appliance.data import job

    clean = job.clean

    class Lost:
        def __init__(self, text: str) -> None:
            self.text = text

        def __del__(self) -> None:
            raise ValueError(self.text)

    async def forgotten(text: str) -> None:
        async def fails() -> None:
            raise LookupError(text)

        task = asyncio.create_task(fails())
        await asyncio.sleep(0)
        del task

    def broken(records: object, **rest: object) -> object:
        text = next(iter(records)).text  # type: ignore[call-overload]
        warnings.warn(f"cannot read {text}", stacklevel=1)
        logging.getLogger("somebody.elses").warning("cannot read %s", text)
        asyncio.run(forgotten(text))
        thread = threading.Thread(target=lambda: {}[text])
        thread.start()
        thread.join()
        Lost(text)
        try:
            int(text)
        except ValueError:
            return clean({}[text], **rest)  # type: ignore[arg-type]

    job.clean = broken  # type: ignore[assignment]


def _kill() -> None:
    import signal

    from appliance.data import store

    store.publish = lambda *parts, **rest: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]


def _talk() -> None:
    import traceback

    from appliance.core import crash

    crash.trace = lambda problem: "".join(traceback.format_exception(problem))
    crash.say_no_words = lambda: None


def _plain() -> None:
    from pathlib import Path

    from appliance.core import files
    from appliance.data import job

    def work_folder(path: Path) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        return path

    files.work_folder = job.work_folder = work_folder


if _FAULTS and "appliance.ops.worker" in sys.orig_argv:
    for _name in sorted(_FAULTS, reverse=True):  # what takes a control away comes before what then fails
        globals()[f"_{_name}"]()
