"""Starts the link of a federation job: the process that has the network, while the job itself has none.

The job's worker calls this before it enters its jail (entry points of `cloister.links`). The link gets the
folder federations/NAME/link and one end of a socket pair; it ends when the job does.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.core.job import Job
from federated.place import held


def hub(job: Job, spec: Mapping[str, Any]) -> socket.socket:
    """The coordinator's; `spec` has federation, host and port.

    Raises:
        NotFound: there is no such federation.
    """
    place = held(job.home, spec["federation"])
    return _started(place.link, "hub_link", spec["host"], str(int(spec["port"])))


def site(job: Job, spec: Mapping[str, Any]) -> socket.socket | None:
    """A site's; `spec` has federation, gateway (host:port) and the digest of the app. None if `carried`.

    Raises:
        NotFound: there is no such federation.
    """
    place = held(job.home, spec["federation"])
    if spec.get("carried"):
        return None
    return _started(place.link, "site_link", f"https://{spec['gateway']}", spec["fab"])


def _started(folder: Path, module: str, *words: str) -> socket.socket:
    ours, theirs = socket.socketpair()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with theirs, (folder / "link.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", f"federated.flower.{module}", str(folder), *words, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            umask=0o077,
            start_new_session=True,
        )
    return ours
