"""The tripwire tells where from, never what; and libraries find the offline environment set."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
from airgap_support import ROOT, in_child

from appliance.core.offline import ENVIRONMENT
from appliance.security.airgap.tripwire import leaves

WANTED = {  # of notes on the air gap, and what the installed libraries read besides
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "DO_NOT_TRACK": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "WANDB_DISABLED": "true",
}

_LAUNCH = """
import os, sys
late = []
def is_set():
    return all(os.environ.get(key) == value for key, value in wanted.items())
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in sys.stdlib_module_names and name not in before and not is_set():
            late.append(name)
sys.meta_path.insert(0, Watch())
sys.argv = ["cloister", "--version"]
import tui.launch
assert is_set()
try:
    tui.launch.main()
except SystemExit:
    pass
assert "typer" in sys.modules
sys.exit(f"imported too early: {late}" if late else 0)
"""


@pytest.mark.parametrize(
    ("event", "words", "wanted"),
    [
        ("socket.connect", (None, ("192.0.2.1", 80)), True),
        ("socket.connect", (None, ("127.0.0.1", 80)), False),
        ("socket.connect", (None, ("127.8.8.8", 80)), False),
        ("socket.connect", (None, ("::1", 80, 0, 0)), False),
        ("socket.connect", (None, ("fe80::1%eth0", 80, 0, 2)), True),
        ("socket.connect", (None, ("example.org", 80)), True),
        ("socket.connect", (None, "/run/engine.sock"), False),
        ("socket.connect", (None, b"\0name"), False),
        ("socket.connect", (None, ("eth0", 3)), True),
        ("socket.sendto", (None, ("192.0.2.1", 53)), True),
        ("socket.sendmsg", (None, ("192.0.2.1", 53)), True),
        ("socket.sendmsg", (None, None), False),
        ("socket.getaddrinfo", ("example.org", 80, 0, 0, 0), True),
        ("socket.getaddrinfo", (b"example.org", 80, 0, 0, 0), True),
        ("socket.getaddrinfo", ("192.0.2.1", 80, 0, 0, 0), False),  # nobody is asked
        ("socket.getaddrinfo", ("localhost", 80, 0, 0, 0), False),
        ("socket.getaddrinfo", (None, 80, 0, 0, 0), False),
        ("socket.gethostbyname", ("example.org",), True),
        ("socket.gethostbyaddr", ("192.0.2.1",), True),
        ("socket.getnameinfo", (("127.0.0.1", 80),), False),
        ("socket.bind", (None, ("0.0.0.0", 80)), False),  # noqa: S104
    ],
)
def test_what_leaves(event: str, words: tuple[object, ...], wanted: bool) -> None:
    assert leaves(event, words) is wanted


def test_it_tells_the_place_and_nothing_else_then_refuses() -> None:
    found = in_child("""
from appliance.security.airgap.tripwire import arm
heard = []
arm(lambda event, **data: heard.append([event, data]))
secret = "patient-4711.example"
def phone_home(name):
    return number(socket.getaddrinfo, name, 80)
code = phone_home(secret)
tell(code=code, heard=heard, here=number(socket.create_server, ("127.0.0.1", 0)))
""")
    ((event, data),) = found["heard"]
    assert (event, data["call"]) == ("tripwire", "socket.getaddrinfo")
    assert found["code"] == errno.EPERM and found["here"] == 0
    assert any(place.startswith("<string>:") for place in data["at"])
    assert all(place.rpartition(":")[2].isdigit() for place in data["at"])
    assert "4711" not in str(found["heard"]) and set(data) == {"call", "at"}


def test_it_hears_nothing_of_native_code() -> None:
    """That is why it is no security: the jail is."""
    found = in_child("""
from appliance.security.airgap.tripwire import arm
heard = []
arm(lambda event, **data: heard.append(event))
from appliance.security.airgap.target import sockaddr
libc = ctypes.CDLL(None)
libc.connect(libc.socket(2, 2, 0), sockaddr(9), 16)
tell(heard=heard)
""")
    assert found["heard"] == []


def test_the_environment_has_what_the_libraries_ask_for() -> None:
    assert WANTED.items() <= ENVIRONMENT.items()


def test_the_launcher_sets_it_before_it_imports_anything() -> None:
    before = ("tui", "tui.launch", "appliance", "appliance.core", "appliance.core.offline")
    code = f"wanted, before = {dict(ENVIRONMENT)!r}, {before!r}" + _LAUNCH
    bare = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=bare | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
