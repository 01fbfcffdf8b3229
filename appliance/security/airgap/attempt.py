"""Attempts to get out, each in a process of its own: `python -m appliance.security.airgap.attempt ORDER`.

ORDER is JSON: profile ("" for none), tcp, tcp6, udp, udp6 (ports), link (a descriptor), tokens (by way).
Prints one JSON object a way: way, and `problem` (the error's number, or null), `answered`; or `refused`,
the two lines of the jail that did not let itself be entered.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

from appliance.core.errors import JailRefused
from appliance.security.airgap.filter import LISTEN, PROFILES, SERVE, Profile
from appliance.security.airgap.jail import enter
from appliance.security.airgap.target import Target
from appliance.security.airgap.ways import WAYS, Way, start_thread

_SECONDS = 15  # for one way


def main(order: Mapping[str, Any]) -> None:
    """Fork for each way; what a jail holds, it holds for good."""
    profile = PROFILES.get(order["profile"])
    ports = {name: order[name] for name in ("tcp", "tcp6", "udp", "udp6")}
    for way in WAYS:
        if token := order["tokens"].get(way.name):
            target = Target(token=token.encode(), open_link=order["link"], **ports)
            pid = os.fork()
            if pid == 0:
                signal.alarm(_SECONDS)
                os.write(1, json.dumps({"way": way.name, **_told(way, profile, target)}).encode() + b"\n")
                os._exit(0)
            os.waitpid(pid, 0)


def _told(way: Way, profile: Profile | None, target: Target) -> dict[str, Any]:
    try:
        _shut_in(way, profile, target)
    except JailRefused as refused:
        return {"refused": [refused.message, refused.hint]}
    try:
        way.attempt(target)
    except OSError as problem:
        return {"problem": problem.errno or 0, "answered": target.answered}
    return {"problem": None, "answered": target.answered}


def _shut_in(way: Way, profile: Profile | None, target: Target) -> None:
    """Make ready what is older than the jail, then enter it as a job does."""
    turned = way.name == "turned"
    if way.name == "thread":
        start_thread(target)
    if profile == SERVE:
        enter(LISTEN, keep=())
    if turned:
        target.listener = _listener()
    if profile is not None:  # no job but an endpoint has a listener; the filter must hold it all the same
        enter(profile, keep=None if turned or profile == SERVE else ())


def _listener() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        return listener.detach()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
