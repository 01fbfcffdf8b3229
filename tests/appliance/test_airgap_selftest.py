"""The self-test: it sees open doors, it sees them shut, and it does not pass when it can see nothing."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from airgap_support import in_child

from appliance.core.errors import JailRefused
from appliance.security.airgap import selftest
from appliance.security.airgap.selftest import Found, SelfTest
from appliance.security.airgap.syscalls import this_machine
from appliance.security.airgap.ways import WAYS

pytestmark = pytest.mark.skipif(this_machine() is None, reason="no jail on this machine")
NO_ROOT_NEEDED = {way.name for way in WAYS} - {"icmp", "packet", "tcp6", "io-uring", "dns"}


@pytest.fixture(scope="module")
def found() -> SelfTest:
    return selftest.run()


def test_every_way_is_shut_in_every_jail(found: SelfTest) -> None:
    assert found.passed and found.blocked == len(found.ways) == 16
    for way in found.ways:
        assert set(way.jails.values()) == {"blocked"}, way
        assert {"none", "listen", "serve"} <= set(way.jails)


def test_the_same_ways_are_seen_open_without_one(found: SelfTest) -> None:
    seen = {way.way for way in found.ways if way.control == "open"}
    assert seen >= NO_ROOT_NEEDED
    assert found.seen_open == len(seen)
    for way in found.ways:
        assert way.result == ("blocked" if way.control == "open" else "shut anyway")
    assert f"16 ways tried, 16 blocked; {len(seen)} of them were seen open" in found.line()


def test_a_jail_that_holds_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); "
        "from appliance.security.airgap import jail; "
        "jail._check = lambda profile: None; "
        "jail.program = lambda profile, machine: [(6, 0, 0, 0x7fff0000)]; "
        "jail.kernel.landlock_version = lambda machine: 0; import runpy; "
        "runpy.run_module('appliance.security.airgap.attempt', run_name='__main__')"
    )
    monkeypatch.setattr(selftest, "_START", broken)
    found = selftest.run(("none",))
    result = {way.way: way.result for way in found.ways}
    assert not found.passed and found.blocked < len(found.ways)
    # Closed when it was entered, which needs no filter.
    assert result.pop("inherited") == "blocked"
    assert {result[name] for name in NO_ROOT_NEEDED & set(result)} == {"open"}


@pytest.mark.parametrize("way", ["turned", "tcp", "io-uring", "thread", "udp", "fastopen-sendto"])
def test_seccomp_alone_holds(way: str) -> None:
    told = in_child(
        f"""
from appliance.security.airgap.attempt import _told
from appliance.security.airgap.target import Target
from appliance.security.airgap.ways import WAYS
kernel.landlock_version = lambda machine: 0
way = next(way for way in WAYS if way.name == "{way}")
tell(**_told(way, SERVE, Target(token=b"x", tcp=9, tcp6=9, udp=9, udp6=9)))
"""
    )
    assert told == {"problem": errno.EPERM, "answered": False}


def told(**changed: Any) -> dict[str, Any]:
    return {"way": "tcp", "title": "TCP", "result": "blocked", "control": "open", "jails": {}} | changed


def test_what_was_not_open_before_proves_nothing() -> None:
    shut = Found(**told(result="shut anyway", control="shut"))
    assert not SelfTest(ways=(shut,), left_out={}).passed
    assert SelfTest(ways=(shut, Found(**told())), left_out={}).passed
    assert not SelfTest(ways=(Found(**told()), Found(**told(result="open"))), left_out={}).passed


def test_a_test_that_sees_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.security.airgap.control.Control.heard", lambda self, token: False)
    with pytest.raises(JailRefused, match="says nothing"):
        selftest.run(("none",), [way for way in WAYS if way.name == "udp"])


def test_an_attempt_that_crashed_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "_START", "raise SystemExit(3)")
    with pytest.raises(JailRefused, match="crashed at tcp"):
        selftest.run(("none",))
