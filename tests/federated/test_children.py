"""The processes of a link: one that ends is started again whatever the link does, and they end in order."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from federated.flower.children import Children


def until(true: Callable[[], bool]) -> None:
    """Wait for something that comes soon."""
    limit = time.monotonic() + 30
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_child_that_is_killed_is_started_again_by_itself(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    children = Children(folder=tmp_path, told=lambda name, what: told.append((name, what)))
    one = children.add("one", ["sleep", "600"])
    assert one.process is not None
    first = one.process.pid
    one.process.kill()  # and this thread does nothing any more, as one that waits for the child's port
    until(lambda: one.process is not None and one.process.pid != first and one.process.poll() is None)
    assert told == [("one", "started"), ("one", "ended with -9; started again")]
    children.end()
    assert one.process.poll() is not None


def test_the_newest_has_ended_before_the_others_are_asked_to(tmp_path: Path) -> None:
    """A site's node can only say goodbye while the sidecar is there."""
    said = tmp_path / "said"
    script = (
        "import pathlib, signal, sys, time; to = open(sys.argv[1], 'a');"
        "signal.signal(signal.SIGTERM, lambda *a: (time.sleep(float(sys.argv[3])), to.write(sys.argv[2]),"
        "to.flush(), sys.exit()));"
        "pathlib.Path(sys.argv[1] + sys.argv[2]).touch(); time.sleep(600)"
    )
    children = Children(folder=tmp_path, told=lambda name, what: None)
    for name, slow in (("a", "0"), ("b", "0.5")):
        children.add(name, [sys.executable, "-c", script, str(said), name, slow])
        until((tmp_path / f"said{name}").exists)
    children.end()
    assert said.read_text() == "ba"
