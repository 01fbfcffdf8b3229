"""A training run in a sealed home: killed, resumed from its sealed checkpoint, and not stopped by a lock."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from vault_support import agent, sealed_home

from appliance.core.home import Home
from appliance.core.sealing import Locked
from appliance.core.vaulted import MAGIC
from appliance.models import importing
from appliance.ops import jobs

SETTINGS = {"private": False, "steps": 30, "early_stop": 3}


@pytest.mark.slow
def test_a_run_goes_on_from_a_sealed_checkpoint_and_ends_after_a_lock(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "home")
    with agent(home, master):
        data = jobs.start(
            home, "import", {"demo": True, "name": "inbox", "patients": 60}, title="t", who="me"
        )
        assert jobs.wait(home, data, 60).state == "done"
        importing.import_base(home, importing.DEMO_BASE, "demo", who="me")
        spec = {"dataset": "inbox", "base": "demo", "name": "a1", "settings": SETTINGS}
        job = jobs.start(home, "train", spec, title="t", who="me")
        _until(home, job, lambda view: view.last.get("stage") == "train" and view.last["done"] >= 5)
        process = jobs._process(home, job)
        assert process is not None
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        assert _plain(home) == set()
        jobs.resume(home, job, who="me")
        _until(home, job, lambda view: [event["event"] for event in view.events].count("started") == 2)
    with pytest.raises(Locked):
        jobs.start(home, "import", {}, title="t", who="me")
    ended = jobs.wait(home, job, 240)
    assert ended.state == "done", ended.end
    assert any(event.get("text", "").startswith("Goes on after step") for event in ended.events)
    assert _plain(home) == set()


def _until(home: Home, job: str, reached) -> None:  # type: ignore[no-untyped-def]
    limit = time.monotonic() + 120
    while not reached(view := jobs.view(home, job)):
        assert view.state in ("running", "waiting"), view.end
        assert time.monotonic() < limit
        time.sleep(0.05)


def _plain(home: Home) -> set[str]:
    """Plain files below the sealed folders, but those that may be; a kill may cut one in its first bytes."""
    files = [file for file in home.path.glob("*/**/*") if file.is_file()]
    plain = {file.name for file in files if not MAGIC.startswith(file.read_bytes()[: len(MAGIC)])}
    return plain - {"events.jsonl", "spare", "log.txt"}
