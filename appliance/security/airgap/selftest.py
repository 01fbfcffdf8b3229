"""The air-gap self-test: every way out tried in every jail, and first without one against a listener here.

Nothing is sent beyond loopback. A way counts as open when its token reached the listener. `control` says
whether it did without a jail: a way that did not is shut on this machine anyway, which proves nothing.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from appliance.core.errors import JailRefused
from appliance.security.airgap.control import Control
from appliance.security.airgap.filter import LISTEN, LOOPBACK, NONE, SERVE
from appliance.security.airgap.ways import WAYS, Way

BLOCKED, OPEN, ANYWAY = "blocked", "open", "shut anyway"
TRIED = (NONE.name, LISTEN.name, SERVE.name, LOOPBACK.name)
_ROOT = Path(__file__).resolve().parents[3]
_SECONDS = 300
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import runpy; "
    "runpy.run_module('appliance.security.airgap.attempt', run_name='__main__')"
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """One way: `result` is BLOCKED, OPEN or ANYWAY over all jails; `control` "open" or "shut" without."""

    way: str
    title: str
    result: str
    control: str
    jails: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """All ways, and why a jail was not tried if one was not."""

    ways: tuple[Found, ...]
    left_out: dict[str, str]

    @property
    def passed(self) -> bool:
        """No way is open, and the test could have seen one."""
        return not any(way.result == OPEN for way in self.ways) and self.seen_open > 0

    @property
    def blocked(self) -> int:
        """Ways that are open in no jail."""
        return sum(way.result != OPEN for way in self.ways)

    @property
    def seen_open(self) -> int:
        """Ways that were open without a jail."""
        return sum(way.control == OPEN for way in self.ways)

    def line(self) -> str:
        """What the test says in one line."""
        count = len(self.ways)
        return (
            f"Air-gap self-test: {count} ways tried, {self.blocked} blocked; "
            f"{self.seen_open} of them were seen open without the jail."
        )

    def as_dict(self) -> dict[str, Any]:
        """For --json and the audit log."""
        return {
            "tried": len(self.ways),
            "blocked": self.blocked,
            "seen_open": self.seen_open,
            "passed": self.passed,
            "ways": [asdict(way) for way in self.ways],
            "left_out": self.left_out,
        }


def run(profiles: Sequence[str] = TRIED, ways: Sequence[Way] = WAYS) -> SelfTest:
    """Try `ways` in the jail of each profile and without one. Takes a few seconds.

    Raises:
        JailRefused: this machine cannot make a jail; or no way was seen open without one, so that the
        test says nothing.
    """
    tokens = {(way.name, profile): secrets.token_hex(8) for way in ways for profile in ("", *profiles)}
    with Control() as control, ThreadPoolExecutor() as pool:
        told = dict(
            zip(
                ("", *profiles),
                pool.map(lambda profile: _attempts(control, profile, ways, tokens), ("", *profiles)),
                strict=True,
            )
        )
        control.settle()
        outs = {
            (name, profile): control.heard(token) or bool(told[profile][name].get("answered"))
            for (name, profile), token in tokens.items()
        }
    left_out = dict(_refusals(told))
    kept = [profile for profile in profiles if profile not in left_out]
    found = SelfTest(ways=tuple(_found(way, kept, outs) for way in ways), left_out=left_out)
    if not found.seen_open:
        raise JailRefused(
            "The self-test saw no way open even without the jail, so it says nothing.",
            "Bring the loopback up (ip link set lo up), then try again.",
        )
    return found


def _found(way: Way, profiles: Sequence[str], outs: dict[tuple[str, str], bool]) -> Found:
    control = outs[way.name, ""]
    jails = {profile: OPEN if outs[way.name, profile] else BLOCKED for profile in profiles}
    result = OPEN if OPEN in jails.values() else BLOCKED if control else ANYWAY
    return Found(
        way=way.name, title=way.title, result=result, control=OPEN if control else "shut", jails=jails
    )


def _refusals(told: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Profiles that this machine cannot make; only the one with a network of its own may be left out.

    A profile that refuses some ways (as a process with an older thread) is there, and those are blocked.
    """
    for profile, said in told.items():
        if all("refused" in one for one in said.values()):
            message, hint = next(iter(said.values()))["refused"]
            if profile != LOOPBACK.name:
                raise JailRefused(message, hint)
            yield profile, message


def _attempts(
    control: Control, profile: str, ways: Sequence[Way], tokens: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    """What the attempts in one jail said, by way.

    Raises:
        JailRefused: one crashed, so that nothing is known of it.
    """
    with control.link() as link:
        own = {way.name: tokens[way.name, profile] for way in ways}
        order = {"profile": profile, "tokens": own, "link": link.fileno(), **control.ports}
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _START, str(_ROOT), json.dumps(order)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=[link.fileno()],
            timeout=_SECONDS,
            check=False,
        )
    told = {one.pop("way"): one for one in map(json.loads, done.stdout.splitlines())}
    if missing := [name for name in own if name not in told]:
        raise JailRefused(
            f"The self-test crashed at {missing[0]} (jail {profile or 'none at all'}).",
            "Run it again; nothing is known of that way.",
        )
    return told
