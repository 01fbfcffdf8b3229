"""The systemd units of a federation's two sides: closed as that of a job, and started only while it lasts."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from federated import ending

UNITS = Path(__file__).resolve().parents[2] / "packaging" / "systemd"
SIDES = {"coordinator": "link/pki/server.key", "site": "link/pki/site.key"}


def read(name: str) -> tuple[configparser.ConfigParser, list[str]]:
    """The last value of each setting, and all lines."""
    text = (UNITS / f"cloister-{name}@.service").read_text()
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    return unit, text.splitlines()


@pytest.mark.parametrize("side", SIDES)
def test_a_side_is_shut_in_as_a_job_is(side: str) -> None:
    unit, lines = read(side)
    service = unit["Service"]
    assert service["User"] == "cloister" and service["CapabilityBoundingSet"] == ""
    assert service["ProtectSystem"] == "strict" and service["ReadWritePaths"] == "/var/lib/cloister"
    assert (service["IPAddressDeny"], service["IPAddressAllow"]) == ("any", "localhost")
    assert service["DevicePolicy"] == "closed" and service["UMask"] == "0077"
    _, of_a_job = read("job")
    other = {
        "Description",
        "Environment",
        "ExecStart",
        "PrivateNetwork",
        "RestrictNamespaces",
        "InaccessiblePaths",
    }
    own = {line for line in of_a_job if "=" in line and line.partition("=")[0] not in other}
    assert own <= set(lines), sorted(own - set(lines))
    assert "RestrictNamespaces=yes" in lines
    assert all("MemoryDenyWriteExecute" not in line for line in lines if not line.startswith("#"))


@pytest.mark.parametrize(("side", "key"), SIDES.items())
def test_it_starts_only_with_the_key_that_an_end_destroys(side: str, key: str) -> None:
    unit, _ = read(side)
    assert key in ending.KEYS
    assert unit["Unit"]["ConditionPathExists"] == f"/var/lib/cloister/federations/%i/{key}"
    assert unit["Unit"]["Requires"] == "cloister-check.service"
    service = unit["Service"]
    assert service["ExecStart"].startswith("/opt/cloister/bin/cloister federate start %i")
    # Ctrl-C stops the job in good order; a coordinator that is away is called again, for ever.
    assert (service["KillSignal"], service["KillMode"], service["SuccessExitStatus"]) == (
        "SIGINT",
        "mixed",
        "130",
    )
    assert service["Restart"] == "on-failure" and unit["Unit"]["StartLimitIntervalSec"] == "0"


@pytest.mark.parametrize("side", SIDES)
def test_systemd_understands_it(side: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here")
    for file in UNITS.glob("*.service"):
        text = file.read_text().replace("/opt/cloister/bin/cloister", sys.executable)
        (tmp_path / file.name).write_text(text)
    done = subprocess.run(
        [analyze, "verify", f"cloister-{side}@north.service"],
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
