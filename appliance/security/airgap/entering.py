"""Which jail a job runs in. One table; a kind of job that it does not name gets the strictest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.core.home import Home
from appliance.security.airgap import places
from appliance.security.airgap.filter import LISTEN, LOOPBACK, NONE, SERVE, Profile
from appliance.security.airgap.jail import Jail, enter, jailed
from appliance.security.airgap.policy import REQUIRED, policy

FIRST = {
    "import": NONE,
    "train": NONE,  # several processes: see first_profile
    "search": NONE,
    "evaluate": NONE,
    "audit-privacy": NONE,
    "quantize": NONE,
    "docs": NONE,
    "federate": NONE,  # the processes with the network are others: federated/links.py
    "join": NONE,
    "simulate": NONE,  # on Flower's engine: see first_profile
    "serve": LISTEN,  # then SERVE, as soon as the port is open
}


def first_profile(kind: str, spec: Mapping[str, Any]) -> Profile:
    """The profile that a job enters before its code is loaded.

    Processes of one training speak over TCP (gloo knows nothing else), as do those of Flower's simulation
    engine (Ray), so they get a network of their own.
    """
    settings = spec.get("settings")
    several = isinstance(settings, Mapping) and int(settings.get("processes") or 1) > 1
    on_ray = kind == "simulate" and spec.get("engine") == "flower"
    return LOOPBACK if on_ray or (kind == "train" and several) else FIRST.get(kind, NONE)


def enter_first(home: Home, kind: str, spec: Mapping[str, Any], *, keep: tuple[int, ...] = ()) -> Jail | None:
    """Enter the jail of a job's kind; None where the site's policy lets jobs run without.

    Raises:
        JailRefused: the policy asks for a jail and this machine cannot make it.
    """
    if policy(home) != REQUIRED:
        return None
    writes, handles = places.of_job(home, kind)
    return enter(first_profile(kind, spec), keep=(*keep, *handles), writes=writes)


def port_is_open() -> Jail | None:
    """Take away the right to open ports, once the endpoint's is open. Does nothing outside of a jail.

    Raises:
        JailRefused: the kernel did not do it.
    """
    return None if jailed() is None else enter(SERVE)
