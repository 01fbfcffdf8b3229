"""An attempt at a secure round, as the coordinator keeps it beside the round.

    attempt                   the last number that was given out, whatever round it was for
    rounds/0007/secure.json   the attempt under way
    rounds/0007/keys/SITE     what a site advertised for it
    rounds/0007/updates/SITE  its masked vector, in the update that it signed
    rounds/0007/reveals/SITE  what it revealed

Until the survivors are fixed an attempt can be given up, and the next has another number. From then on it is
finished with these very survivors, for each site answers once.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from appliance.core.files import write_bytes
from appliance.core.reading import read_bytes
from federated.checkpoint import folder_of
from federated.rounds import Round
from federated.secagg.federation import Plan

Folder = Literal["keys", "updates", "reveals"]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """`number` is the round of secagg/; `deadline` that of the step, `tries` how often it was opened.

    `cohort` is empty while keys are gathered, `survivors` while vectors are.
    """

    number: int
    roster: tuple[str, ...]
    threshold: int
    deadline: float
    cohort: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()
    tries: int = 1

    @property
    def plan(self) -> Plan:
        """The plan that its sites agreed to."""
        return Plan(round=self.number, roster=self.roster, threshold=self.threshold)


def next_number(home: Path, now: float) -> int:
    """A number that no site was ever told, also where the folder is an older copy of itself."""
    path = home / "attempt"
    number = max((int(read_bytes(path)) if path.exists() else 0) + 1, int(now))
    home.mkdir(parents=True, exist_ok=True)
    write_bytes(path, str(number).encode())
    return number


def kept(home: Path, number: int) -> Attempt | None:
    """The attempt under way at round `number`."""
    path = folder_of(home, number) / "secure.json"
    if not path.exists():
        return None
    held: dict[str, Any] = json.loads(read_bytes(path))
    names = {name: tuple(held[name]) for name in ("roster", "cohort", "survivors")}
    return Attempt(**(held | names))


def keep(home: Path, number: int, attempt: Attempt) -> None:
    """Write it."""
    write_bytes(folder_of(home, number) / "secure.json", json.dumps(vars(attempt)).encode())


def clear(home: Path, number: int) -> None:
    """Make room for an attempt: what sites sent for the one before is gone."""
    for name in ("keys", "updates", "reveals"):
        shutil.rmtree(folder_of(home, number) / name, ignore_errors=True)
        (folder_of(home, number) / name).mkdir(parents=True)


def finish(home: Path, number: int) -> None:
    """Take away all that a committed round needs no more."""
    for name in ("keys", "reveals"):
        shutil.rmtree(folder_of(home, number) / name, ignore_errors=True)
    (folder_of(home, number) / "secure.json").unlink(missing_ok=True)


def step_of(home: Path, state: Round) -> tuple[str, list[str]] | None:
    """The step of the attempt under way, in words, and whom it waits for."""
    one = kept(home, state.number)
    if one is None:
        return None
    if not one.cohort:
        known = sites(home, state.number, "keys") | set(state.refused)
        return "gathers keys", [site for site in one.roster if site not in known]
    if not one.survivors:
        return "gathers masked updates", list(state.open)
    known = sites(home, state.number, "reveals")
    return "opens the sum", [site for site in one.survivors if site not in known]


def put(home: Path, number: int, folder: Folder, site: str, content: bytes) -> None:
    """Store what a site sent."""
    write_bytes(folder_of(home, number) / folder / site, content)


def read(home: Path, number: int, folder: Folder, site: str) -> bytes:
    """What it sent."""
    return read_bytes(folder_of(home, number) / folder / site)


def sites(home: Path, number: int, folder: Folder) -> set[str]:
    """Who sent something."""
    place = folder_of(home, number) / folder
    return (
        {path.name for path in place.iterdir() if not path.name.startswith(".")} if place.is_dir() else set()
    )
