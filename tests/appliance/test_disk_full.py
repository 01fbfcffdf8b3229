"""A disk that is full at any moment: the old state stays, the message says what to do, no draft is left."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import test_power_loss as work

from appliance.core import files
from appliance.core.errors import NoRoom
from appliance.core.home import Home
from appliance.core.sealing import AREAS, draft_of

ROOT = Path(__file__).resolve().parents[2]


def drafts(home: Home) -> list[str]:
    """What is left of work that did not end."""
    found = [path for area in (*AREAS, "bundles") for path in (home.path / area).rglob(".*")]
    return sorted(str(path.relative_to(home.path)) for path in found if not path.name.startswith(".lock"))


class NoMore:
    """Lets `left` operations that need room go well, then none."""

    def __init__(self, left: int) -> None:
        self.left, self.failed = left, False

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.failed = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def room_for(operations: int, inside: Path) -> Iterator[NoMore]:
    """os.write, fsync, rename, replace and mkdir, and opening to write, fail below `inside` after so many."""
    counter, real_open = NoMore(operations), os.open
    real = {name: getattr(os, name) for name in ("fsync", "rename", "replace", "mkdir", "write")}

    def around(name: str) -> Any:
        def counted(*parts: Any, **rest: Any) -> Any:
            counter.spend()
            return real[name](*parts, **rest)

        return counted

    def opened(path: Any, flags: int, *parts: Any, **rest: Any) -> int:
        if flags & os.O_CREAT:
            counter.spend()
        return real_open(path, flags, *parts, **rest)

    for name in real:
        setattr(os, name, around(name))
    os.open = opened  # type: ignore[assignment]
    try:
        yield counter
    finally:
        os.open = real_open
        for name, function in real.items():
            setattr(os, name, function)


@pytest.mark.parametrize("what", work.WORK)
def test_the_disk_is_full_at_every_operation(tmp_path: Path, what: str) -> None:
    with ExitStack() as held:
        site = work.prepared(tmp_path, what, 1, held)
        failures = 0
        for operations in range(200):
            with room_for(operations, tmp_path) as counter:
                try:
                    work.WORK[what](site)
                except NoRoom as problem:
                    assert problem.hint and any(
                        each in problem.message
                        for each in (str(tmp_path), "/dev/shm")  # noqa: S108
                    )
                except OSError as problem:
                    assert problem.errno == errno.ENOSPC  # the worker says it (ops/worker.py)
            if not counter.failed:
                break
            failures += 1
            work.check(site, what, 0)
            assert drafts(site.home) == []
        work.check(site, what, 0)
    assert failures >= 3 and operations < 199


TMPFS = """
import sys
from contextlib import ExitStack
from pathlib import Path
import test_disk_full as t, test_power_loss as work
from appliance.core.errors import NoRoom
what, disk = sys.argv[1], Path(sys.argv[2])
with ExitStack() as held:
    site = work.prepared(disk, what, 1, held)
    failures = 0
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while stream.write(bytes(4096)):
                pass
        except OSError:
            pass
    full = filler.stat().st_size
    for room in range(0, 1 << 20, 16384):
        with filler.open("r+b") as stream:
            stream.truncate(max(0, full - room))
        try:
            work.WORK[what](site)
            break
        except NoRoom as problem:
            assert problem.hint, problem
            failures += 1
        filler.unlink()
        work.check(site, what, 0)
        assert t.drafts(site.home) == [], t.drafts(site.home)
        filler.write_bytes(bytes(max(0, full - (1 << 20))))
        with filler.open("ab", buffering=0) as stream:
            try:
                while stream.write(bytes(4096)):
                    pass
            except OSError:
                pass
        full = filler.stat().st_size
    filler.unlink()
    work.WORK[what](site)
    work.check(site, what, 0)
    print("held", failures)
"""


JOB = """
import errno, json, os, sys
from pathlib import Path
from appliance.core.events import read_events
from appliance.ops import worker
disk = Path(sys.argv[1])
os.environ["CLOISTER_HOME"] = str(disk)
folder = disk / "jobs" / "0001"
folder.mkdir(parents=True)
(folder / "spec.json").write_text(json.dumps({"kind": "import", "who": "mira", "spec": {}}))
sys.stderr = (folder / "log.txt").open("w")
def code(spec, job):
    events = folder / "events.jsonl"
    while events.stat().st_size % 4096 < 4000:  # what is left of its last block would take the end
        job.log("x")
    with (disk / "filler").open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
worker._code = lambda kind: code
worker._shut_in = worker.orders.check = lambda *_: None
done = worker.main(folder)
print(done, read_events(folder / "events.jsonl")[0][-1]["event"], os.listdir(folder))
"""


def on_a_small_disk(folder: Path, size: str, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own, with a disk of that size; its place is the last word."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["unshare", "--mount", "sh", "-c"]
    mount += [f'mount -t tmpfs -o size={size} none "$1" && shift && exec "$@"', "sh"]
    try:
        subprocess.run([*mount, str(disk), "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk can be mounted here")
    return subprocess.run(
        [*mount, str(disk), sys.executable, "-c", code, *words, str(disk)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])},
    )


@pytest.mark.parametrize("what", work.WORK)
def test_a_small_disk_that_is_full(tmp_path: Path, what: str) -> None:
    size = "32m" if what == "bundle" else "8m"  # an import asks for 16 MiB more than the bundle
    done = on_a_small_disk(tmp_path, size, TMPFS, what)
    assert done.stdout.startswith("held"), done.stderr[-3000:]
    assert int(done.stdout.split()[1]) >= 1


def test_a_job_that_filled_the_disk_says_so(tmp_path: Path) -> None:
    done = on_a_small_disk(tmp_path, "2m", JOB)
    assert done.stdout.startswith("8 failed"), (done.stdout, done.stderr[-3000:])
    assert "'spare'" not in done.stdout


def test_a_file_that_may_not_grow_is_named_and_leaves_the_old_one(tmp_path: Path) -> None:
    """RLIMIT_FSIZE, as a FAT stick: the system says EFBIG."""
    path = tmp_path / "kept.json"
    files.write_bytes(path, b"old")
    code = f"""
import resource, signal, sys
from pathlib import Path
from appliance.core import files
from appliance.core.errors import NoRoom
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    files.write_bytes(Path({str(path)!r}), bytes(9000))
except NoRoom as problem:
    print(problem.message, problem.hint)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "no file as large" in done.stdout and "4 GB" in done.stdout and str(tmp_path) in done.stdout
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_drafts_of_killed_processes_are_swept_and_those_of_the_living_are_not(home: Home) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for area in ("models", "jobs"):
        (home.path / area / "x").mkdir(exist_ok=True)
        ours = draft_of(home.path / area / "x" / "a.json")
        for pid in (dead.pid, os.getpid()):
            ours.with_name(ours.name.replace(f".{os.getpid()}.tmp", f".{pid}.tmp")).write_text("x")
    (home.models / f".whole.{dead.pid}.tmp").mkdir()
    (home.models / f".whole.{dead.pid}.tmp" / "part").write_text("x")
    (home.models / ".not-a-draft.tmp").write_text("x")
    assert files.sweep(home.path) == 0  # too young: another machine may share the home
    assert files.sweep(home.path, older=-1) == 3
    left = {path.name for path in home.path.rglob(".*")}
    assert left == {ours.name, ".not-a-draft.tmp"}


def test_threads_that_write_one_file_leave_the_whole_of_one_of_them(tmp_path: Path) -> None:
    path = tmp_path / "a.json"

    def write(number: int) -> None:
        for _ in range(50):
            files.write_bytes(path, bytes([number]) * 9000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    content = path.read_bytes()
    assert len(content) == 9000 and len(set(content)) == 1 and list(tmp_path.iterdir()) == [path]
