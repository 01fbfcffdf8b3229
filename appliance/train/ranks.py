"""One run on several processes, one per GPU where there are any: torchrun starts them, gloo joins them.

Every process holds the model and computes the clipped integer sums of its share of a step's
micro-batches; the sums are added exactly. The first alone charges the ledger, draws the noise and
writes files; the others take its gradient, so that all weights stay equal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from appliance.core.crash import no_readers, say_no_words
from appliance.core.errors import ApplianceError, JobFailed
from appliance.core.files import write_json
from appliance.core.home import open_home
from appliance.core.job import Job
from appliance.core.offline import stay_offline
from appliance.core.parent import die_with_parent
from appliance.core.reading import read_bytes
from appliance.core.sealing import inherited
from appliance.security.people import orders

_ANSWER = "ranks.json"
_TORCHRUN = (  # it inherits the keys of a sealed home, to hand them on
    "from appliance.core.crash import no_readers; no_readers(); import runpy; "
    "runpy.run_module('torch.distributed.run', run_name='__main__', alter_sys=True)"
)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among `size`; rank 0 is the first."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process charges, draws noise and writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of what all have in the same order."""
        return items[self.rank :: self.size]

    def summed(self, values: NDArray[Any]) -> NDArray[Any]:
        """The sum over all processes, known to each; integers are summed exactly."""
        if self.size == 1:
            return values
        told = torch.from_numpy(np.ascontiguousarray(values))
        torch.distributed.all_reduce(told)
        return told.numpy()

    def from_first(self, value: T) -> T:
        """What the first process has, a JSON value, known to each."""
        if self.size == 1:
            return value
        words = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        length = torch.tensor([len(words)])
        torch.distributed.broadcast(length, 0)
        words = words if self.first else torch.empty(int(length), dtype=torch.uint8)
        torch.distributed.broadcast(words, 0)
        found: T = json.loads(bytes(words.numpy()))
        return found

    def gradient(self, values: torch.Tensor) -> torch.Tensor:
        """The first process's tensor, in place of each one's own of the same shape."""
        if self.size > 1:
            torch.distributed.broadcast(values, 0)
        return values


SOLO = Ranks()


def joined() -> Ranks:
    """This process's place, from the environment that torchrun made; SOLO outside of one."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return SOLO
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    return Ranks(rank=torch.distributed.get_rank(), size=torch.distributed.get_world_size())


def leave() -> None:
    """Part from the others once all are done: a process that ends first would make the rest abort."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def launch(job: Job, processes: int) -> dict[str, Any]:
    """Run the job's training on `processes` processes of this machine; the first one's result.

    Raises:
        ApplianceError: as the first process raised it. JobFailed: a process died.
    """
    answer = job.folder / _ANSWER
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-c", _TORCHRUN, "--standalone", "--no-python"]
    command += [f"--nproc-per-node={processes}", sys.executable, "-m", "appliance.train.ranks"]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    child = subprocess.Popen(
        [*command, str(job.folder)],
        env={"OMP_NUM_THREADS": threads, **os.environ},
        cwd=job.folder,
        pass_fds=inherited(),
        preexec_fn=partial(die_with_parent, os.getpid()),
    )
    try:
        code = child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if not answer.exists():
        raise JobFailed(
            f"One of the {processes} training processes died (code {code}).",
            f"Go on with `cloister job resume {job.id}`.",
        )
    told: dict[str, Any] = json.loads(read_bytes(answer))
    if "result" in told:
        result: dict[str, Any] = told["result"]
        return result
    error = JobFailed(told["message"], told["hint"])
    error.code, error.exit_code = told["code"], told["exit_code"]
    raise error


class _Silent(Job):
    """A job of which nothing is told: what the first process says is enough."""

    def emit(self, event: str, **data: Any) -> None:
        """Say nothing."""


def _main(folder: Path) -> int:
    """One process of a run: `python -m appliance.train.ranks JOBFOLDER`, started by torchrun."""
    os.umask(0o077)
    no_readers()
    die_with_parent(os.getppid())  # torchrun, which dies with the job: a resumed run must be alone
    stay_offline()
    say_no_words()
    from appliance.train.job import run

    order = json.loads(read_bytes(folder / "spec.json"))
    ranks = joined()
    kind = Job if ranks.first else _Silent
    job = kind(id=folder.name, kind=order["kind"], folder=folder, home=open_home(), who=order["who"])
    try:
        orders.check(job.home, folder, order, fresh=False)
        told: dict[str, Any] = {"result": run(order["spec"], job)}
    except ApplianceError as problem:
        told = {"message": problem.message, "hint": problem.hint}
        told |= {"code": problem.code, "exit_code": problem.exit_code}
    if ranks.first:
        write_json(folder / _ANSWER, told)
    if "result" in told:
        leave()
    return 0 if "result" in told else 1


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
