"""The jail in real processes: what each profile holds, and that each of its locks holds alone."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from airgap_support import ROOT, in_child

from appliance.security.airgap import kernel
from appliance.security.airgap.syscalls import this_machine

MACHINE = this_machine()
pytestmark = pytest.mark.skipif(MACHINE is None, reason="no jail on this machine")
LANDLOCK = kernel.landlock_version(MACHINE) if MACHINE else 0
NO_LANDLOCK = "kernel.landlock_version = lambda machine: 0"
NO_FILTER = "kernel.install = lambda program, machine: None; jail._check = lambda profile: None"
SOCKETS = """
families = {"tcp": (2, 1), "udp": (2, 2), "tcp6": (10, 1), "raw": (2, 3), "packet": (17, 3), "vsock": (40, 1)}
found = {name: number(socket.socket, *words) for name, words in families.items()}
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(0.2)
        yield made


@pytest.mark.parametrize("profile", ["none", "serve"])
def test_nothing_but_local_sockets_is_left(profile: str) -> None:
    found = in_child(f"""
here = enter(PROFILES["{profile}"], keep=())
{SOCKETS}
tell(**found, unix=number(socket.socket, 1, 1), datagram=number(socket.socket, 1, 2),
     pair=number(socket.socketpair), seen=here.seen_open, name=jailed().profile)
""")
    assert found.pop("seen") and found.pop("name") == profile
    assert (found.pop("unix"), found.pop("pair")) == (0, 0)
    assert set(found.values()) == {errno.EPERM}, found


def test_without_the_jail_they_are_there() -> None:
    found = in_child(f"{SOCKETS}\ntell(**found, jail=jailed())")
    assert found["jail"] is None and found["tcp"] == found["udp"] == 0


@pytest.mark.parametrize("profile", ["none", "listen", "serve", "loopback", "site"])
def test_no_core_no_reader_no_new_rights(profile: str) -> None:
    found = in_child(f"""
import resource
enter(PROFILES["{profile}"], keep=())
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
tell(core=resource.getrlimit(resource.RLIMIT_CORE), dumpable=ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
     rights=status["NoNewPrivs"].strip(), filtered=status["Seccomp"].strip(),
     hides=jail._hides_processes())
""")
    assert found["core"] in ([1, 1], [0, 0]) and found["rights"] == "1" and found["filtered"] == "2"
    assert found["hides"] or found["dumpable"] == 0


def test_every_thread_is_held(listener: socket.socket) -> None:
    found = in_child("""
go, found = threading.Event(), []
older = threading.Thread(target=lambda: (go.wait(), found.append(number(socket.socket, 2, 1))))
older.start()
enter(NONE, keep=())
go.set(); older.join()
tell(older=found[0])
""")
    assert found["older"] == errno.EPERM


def test_what_was_inherited_is_closed_unless_named(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()) as link:
        os.set_inheritable(link.fileno(), True)
        one, two = link.fileno(), listener.fileno()
        found = in_child(
            f"""
enter(NONE, keep=({two},))
tell(closed=number(os.fstat, {one}), kept=number(os.fstat, {two}), out=number(os.fstat, 1))
""",
            files=[one, two],
        )
    assert found == {"closed": errno.EBADF, "kept": 0, "out": 0}


def test_children_inherit_it() -> None:
    found = in_child("""
import subprocess
enter(NONE, keep=())
code = "import socket; socket.socket(socket.AF_INET)"
done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
tell(said=done.stderr)
""")
    assert "PermissionError" in found["said"]


NEW = """
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def made(call, *words):
    pid = libc.syscall(call, *map(ctypes.c_ulong, words))
    if pid == 0:
        os._exit(0)
    if pid > 0:
        os.waitpid(pid, 0)
    return ctypes.get_errno() if pid < 0 else 0
wanted = ctypes.create_string_buffer(struct.pack("=QQQQQ24x", 0x50000000, 0, 0, 0, 17), 64)
calls = jail.this_machine().numbers
asked = (0x10000000, 0x40000000, 0x50000000)
user, net, both = (made(calls["clone"], flags | 17, 0, 0, 0, 0) for flags in asked)
three = made(calls["clone3"], ctypes.addressof(wanted), 64)
"""
WORK = """
import subprocess
told = []
thread = threading.Thread(target=lambda: told.append(subprocess.run(["true"]).returncode))
thread.start(); thread.join()
forked = os.waitpid(os.fork() or os._exit(3), 0)[1]
tell(user=user, net=net, both=both, three=three, thread=told, forked=forked)
"""


def test_no_namespace_of_its_own_and_threads_and_programs_still() -> None:
    found = in_child(NEW + WORK, before="enter(NONE, keep=())")
    assert found.pop("three") == errno.ENOSYS
    assert found.pop("thread") == [0] and found.pop("forked") == 3 << 8
    assert set(found.values()) == {errno.EPERM}


def test_without_the_filter_there_is_one() -> None:
    found = in_child(NEW + WORK)
    if found["both"]:
        pytest.skip("this kernel gives accounts no namespaces")
    assert (found["user"], found["three"]) == (0, 0)


TURN = """
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname()); accepted, _ = listener.accept()
"""
TURNED = """
def out(link):
    ctypes.CDLL(None).connect(link.fileno(), struct.pack("=H", 0), 2)
    return [number(link.sendto, b"x", 0x20000000, where), number(link.connect, where)]
tell(listener=out(listener), accepted=out(accepted))
"""


@pytest.mark.parametrize("locks", ["", NO_LANDLOCK], ids=["both", "seccomp alone"])
def test_an_endpoints_sockets_cannot_be_turned_around(listener: socket.socket, locks: str) -> None:
    where = f"where = {listener.getsockname()!r}\n"
    found = in_child(
        where + TURNED,
        before=f"{TURN}\n{locks}\nenter(SERVE)",
    )
    assert {code for codes in found.values() for code in codes} == {errno.EPERM}
    with pytest.raises(TimeoutError):
        listener.accept()


def test_without_the_filter_they_can(listener: socket.socket) -> None:
    where = f"where = {listener.getsockname()!r}\n"
    found = in_child(
        where + TURNED,
        before=f"{TURN}\n{NO_LANDLOCK}\n{NO_FILTER}\nenter(SERVE)",
    )
    assert found["listener"][0] == 0
    arrived, _ = listener.accept()
    with arrived:
        assert arrived.recv(1) == b"x"


@pytest.mark.skipif(LANDLOCK < kernel.NETWORK_RULES, reason="this kernel's Landlock knows no ports")
def test_landlock_alone_holds_tcp(listener: socket.socket) -> None:
    found = in_child(
        f"""
tell(code=number(socket.create_connection, {listener.getsockname()!r}),
     port=number(socket.create_server, ("127.0.0.1", 0)))
""",
        before=f"{NO_FILTER}\nenter(NONE, keep=())",
    )
    assert found == {"code": errno.EACCES, "port": errno.EACCES}


@pytest.mark.skipif(LANDLOCK < kernel.SCOPES, reason="this kernel's Landlock has no scopes")
def test_processes_outside_are_out_of_reach() -> None:
    with subprocess.Popen(["sleep", "60"]) as outside:
        code = f"""
tell(memory=number(os.open, "/proc/{outside.pid}/mem", os.O_RDWR), signal=number(os.kill, {outside.pid}, 0))
"""
        free = in_child(code)
        held = in_child(code, before="enter(NONE, keep=())")
        outside.kill()
    assert free == {"memory": 0, "signal": 0}
    assert held == {"memory": errno.EACCES, "signal": errno.EPERM}


def test_a_short_name_reaches_the_engine_and_a_long_one_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "engine.sock"))
        engine.listen()
        code = f"""
path = {str(tmp_path / "engine.sock")!r}
handle = os.open(path, os.O_PATH)
tell(long=number(socket.socket(socket.AF_UNIX).connect, path),
     short=number(socket.socket(socket.AF_UNIX).connect, f"/dev/fd/{{handle}}"))
"""
        assert in_child(code, before="enter(SERVE)") == {"long": errno.EPERM, "short": 0}
        assert in_child(code, before="enter(NONE)") == {"long": errno.EPERM, "short": errno.EPERM}


def test_a_port_is_opened_before_the_second_door_shuts(listener: socket.socket) -> None:
    found = in_child(f"""
enter(LISTEN, keep=())
out = number(socket.socket(2, 1).connect, {listener.getsockname()!r})
served = socket.create_server(("127.0.0.1", 0))
enter(SERVE)
tell(out=out, more=number(socket.socket, 2, 1), port=served.getsockname()[1])
""")
    assert found["out"] == found["more"] == errno.EPERM and found["port"] > 0


@pytest.mark.parametrize("user", [None, 65534])
def test_several_processes_speak_in_a_network_of_their_own(listener: socket.socket, user: int | None) -> None:
    if user is not None and (os.geteuid() != 0 or not _may_read(user)):
        pytest.skip("no other account can run this Python")
    found = in_child(
        f"""
enter(LOOPBACK, keep=())
served = socket.create_server(("127.0.0.1", 0))
tell(own=number(socket.create_connection, served.getsockname()),
     other=number(socket.create_connection, {listener.getsockname()!r}),
     far=number(socket.create_connection, ("192.0.2.1", 80)), udp=number(socket.socket, 2, 2),
     devices=[name for _, name in socket.if_nameindex()])
""",
        user=user,
    )
    assert found["own"] == 0 and found["devices"] == ["lo"]
    assert found["other"] == errno.ECONNREFUSED and found["far"] == errno.ENETUNREACH
    assert found["udp"] == errno.EPERM


@pytest.mark.parametrize(
    "older", ["socket.socket()", "socket.socketpair(); threading.Thread(target=end.wait).start()"]
)
def test_what_is_older_keeps_no_network_open(older: str) -> None:
    found = in_child(f"""
end = threading.Event()
held = {older}
try:
    enter(LOOPBACK)
except jail.JailRefused as problem:
    tell(said=problem.message)
end.set()
""")
    assert "cannot leave the network" in found["said"]


@pytest.mark.skipif(LANDLOCK < kernel.NETWORK_RULES, reason="this kernel's Landlock knows no ports")
def test_a_site_reaches_the_coordinators_port_and_no_other(listener: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        found = in_child(f"""
enter(SITE, keep=(), ports=[{listener.getsockname()[1]}])
tell(coordinator=number(socket.create_connection, {listener.getsockname()!r}),
     other=number(socket.create_connection, {other.getsockname()!r}), udp=number(socket.socket, 2, 2))
""")
    assert found == {"coordinator": 0, "other": errno.EACCES, "udp": errno.EPERM}


REFUSED = """
try:
    enter({words})
    tell(said=None)
except jail.JailRefused as problem:
    tell(said=problem.message, hint=problem.hint, code=problem.exit_code)
"""


@pytest.mark.parametrize(
    ("before", "words", "said"),
    [
        ("jail.this_machine = lambda: None", "NONE, keep=()", "There is no jail for Linux"),
        (NO_LANDLOCK, "SITE, keep=(), ports=[1]", "cannot hold a process to the coordinator's port"),
        ("kernel.install = lambda program, machine: None", "NONE, keep=()", "does not hold"),
        ("rules.EQUAL = 0xFF", "NONE, keep=()", "did not make the jail"),
    ],
    ids=["machine", "landlock", "no filter", "bad filter"],
)
def test_a_jail_that_cannot_be_made_is_refused(before: str, words: str, said: str) -> None:
    found = in_child(REFUSED.format(words=words), before=before)
    assert said in found["said"] and found["hint"] and found["code"] == 14


def _may_read(user: int) -> bool:
    words = [sys.executable, "-c", "import appliance"]
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        return subprocess.run(words, env=path, user=user, capture_output=True, check=False).returncode == 0
    except PermissionError:
        return False
