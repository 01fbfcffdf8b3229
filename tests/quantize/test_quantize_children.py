"""A child has limits; beyond them, it ends and the parent says so."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import fuzz_support
import pytest

from appliance.core.errors import EngineFailed, NoRoom
from quantize import worker


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a child import this folder's modules."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


@pytest.mark.usefixtures("helpers")
def test_a_child_has_limits() -> None:
    held = worker.run(fuzz_support.limits, doing="Asking", timeout=60, memory=3_000_000_000)
    assert held["CORE"] in ([1, 1], [0, 0]) and held["AS"] == [3_000_000_000] * 2
    assert held["CPU"][0] == 60 * len(os.sched_getaffinity(0)) + 5


@pytest.mark.usefixtures("helpers")
def test_a_lower_limit_of_the_system_stays() -> None:
    code = (
        "import resource, fuzz_support; from quantize import worker;"
        "resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000,) * 2);"
        "print(worker.run(fuzz_support.limits, doing='Asking', timeout=60, memory=3_000_000_000)['AS'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[2000000000, 2000000000]", done.stderr


@pytest.mark.usefixtures("helpers")
@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("burn", EngineFailed, "used up its processor time"),
        ("fill", NoRoom, "more memory than it may have"),
        ("flood", EngineFailed, "wrote without end"),
        ("hang", EngineFailed, "took longer than 5 s"),
    ],
)
def test_beyond_its_limits_a_child_ends_with_a_typed_error(
    name: str, kind: type[Exception], said: str
) -> None:
    began = time.monotonic()
    with pytest.raises(kind, match=said) as caught:
        limit = {"timeout": 5} if name == "hang" else {"timeout": 100, "memory": 4_000_000_000}
        worker.run(getattr(fuzz_support, name), doing="Opening it", **limit)
    assert "Opening it" in str(caught.value) and getattr(caught.value, "hint", "")
    assert time.monotonic() - began < 60


@pytest.mark.usefixtures("helpers")
def test_an_answer_that_is_none_is_a_typed_error() -> None:
    with pytest.raises(EngineFailed, match="an answer that cannot be read"):
        worker.run(fuzz_support.lie, doing="Opening it", folder="x")
