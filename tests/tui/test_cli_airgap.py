"""cloister airgap as people and programs see it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from appliance.core.db import reading
from appliance.core.home import Home
from appliance.ops.evidence import probes_network
from appliance.ops.evidence.shape import Look
from appliance.security import audit
from appliance.security.airgap import jail, kernel, selftest
from appliance.security.airgap.selftest import Found, SelfTest
from appliance.security.airgap.syscalls import MACHINES, this_machine
from tui.cli.entry import run


def ways(**last: Any) -> SelfTest:
    made = {"way": "udp", "title": "UDP datagram", "control": "open", "result": "blocked"}
    shut = Found(**made, jails={"none": "blocked", "serve": "blocked"})
    other = made | {"way": "turned", "title": "a listening socket turned around"} | last
    return SelfTest(
        ways=(shut, Found(**{"jails": {"none": "blocked", "serve": "blocked"}, **other})), left_out={}
    )


@pytest.mark.skipif(this_machine() is None, reason="no jail on this machine")
def test_the_real_check_as_json(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["airgap", "check", "--json", "--home", str(home.path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tried"] == found["blocked"] == len(found["ways"]) >= 14
    assert found["passed"] and found["policy"] == "required"
    assert all({"way", "result", "control"} <= set(way) for way in found["ways"])
    with reading(home) as link:
        (entry,) = audit.tail(link, 5)
    assert entry["what"] == "airgap.check" and entry["passed"] and entry["open"] == []
    assert (entry["tried"], entry["blocked"]) == (found["tried"], found["blocked"])


def test_the_table_fits_80_columns(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "run", lambda: ways(control="shut", result="shut anyway"))
    assert run(["airgap", "check", "--home", str(home.path)]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) < 80
    assert "2 ways tried, 2 blocked; 1 of them" in " ".join(said.split()) and "shut anyway" in said


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_kernel_without_rules_for_files_is_named(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    monkeypatch.setattr(selftest, "run", ways)
    monkeypatch.setattr(jail, "this_machine", lambda: MACHINES["x86_64"])
    monkeypatch.setattr(kernel, "landlock_version", lambda machine: version)
    assert run(["airgap", "check", "--home", str(home.path)]) == 0
    said = capsys.readouterr().out
    assert ("LEFT OPEN: this kernel has no Landlock file rules" in said) == (version < 2)
    told = probes_network.airgap(cast(Look, SimpleNamespace(home=home)))
    assert ("Left open: this kernel" in told.text) == (version < 2)


def test_an_open_way_fails_and_is_named(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ways(result="open", jails={"none": "blocked", "serve": "open"})
    monkeypatch.setattr(selftest, "run", lambda: found)
    assert run(["airgap", "check", "--home", str(home.path)]) == 14
    said = capsys.readouterr()
    assert "open (serve)" in said.out and max(map(len, said.out.splitlines())) < 80
    assert said.err.startswith("error: A way out is open: a listening socket turned around.\ntry: ")
    assert run(["airgap", "check", "--json", "--home", str(home.path)]) == 14
    told = json.loads(capsys.readouterr().out)
    assert (told["tried"], told["blocked"], told["passed"]) == (2, 1, False)


def test_the_policy_is_shown_and_set(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--home", str(home.path)]
    assert run(["airgap", "policy", "off", *where]) == 2
    assert "need a reason" in capsys.readouterr().err
    assert run(["airgap", "policy", "off", "--because", "a test box", *where]) == 0
    assert "WITHOUT the jail" in capsys.readouterr().out
    assert run(["airgap", "policy", "--json", *where]) == 0
    assert json.loads(capsys.readouterr().out) == {"jail": "off"}
    assert run(["airgap", "policy", "required", *where]) == 0
    assert "or not at all" in capsys.readouterr().out
