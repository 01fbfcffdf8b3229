"""Three hospitals train one model together: real commands, real processes, two of them killed on the way."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from federation import SITES, enrolled, started, state, until

pytestmark = pytest.mark.soak

_OPTIONS = (
    *("--rounds", "3", "--quorum", "3", "--deadline", "1"),
    *("--steps", "1", "--sample-rate", "0.06", "--delta", "1e-4"),
)


def test_three_hospitals_train_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    hub, sites = enrolled(tmp_path, *_OPTIONS)
    run, jobs = started(hub, sites)
    west = sites["west"]
    until(lambda: west.told(jobs["west"], "asked"), "the first round did not reach the site")
    west.kill(jobs["west"])  # a site dies in the middle of a round
    assert west.cloister("federate", "status", "valley")["job"]["state"] == "died"
    with west.following("job", "resume", jobs["west"]) as resumed:
        until(lambda: hub.told(run, "round", round=2, state="open"), "round 2")
        hub.kill(run)  # the coordinator dies in the middle of a round
        assert hub.cloister("federate", "status", "valley")["job"]["state"] == "died"
        assert hub.cloister("job", "resume", run)["state"] == "done"
        assert resumed.wait(60) == 0, "who looks on at the site was not told of the end"
    for name in SITES:  # all have heard of the end, and have no key of it any more
        until(lambda name=name: state(sites[name])["job"]["state"] == "done", f"{name} did not end")
        assert state(sites[name])["agreement"]["ended"]
        assert not (sites[name].home / "federations" / "valley" / "link" / "pki" / "site.key").exists()
    assert not (hub.home / "federations" / "valley" / "authority.key").exists()

    found = hub.cloister("federate", "status", "valley")
    assert [one["round"] for one in found["rounds"]] == [1, 2, 3]
    assert all(one["sites"] == sorted(SITES) for one in found["rounds"])  # nothing that was sent is lost

    def paid(name: str) -> None:
        """From the site's own ledger, and never more than was agreed."""
        epsilon = sites[name].cloister("federate", "status", "valley")["epsilon"]
        assert 0 < epsilon["spent"] <= epsilon["agreed"] == 8.0
        (budget,) = sites[name].cloister("budget", "show")["datasets"]
        assert budget["epsilon_spent"] == pytest.approx(epsilon["spent"])

    with ThreadPoolExecutor(2) as several:
        list(several.map(paid, SITES))
    assert hub.cloister("budget", "show")["datasets"] == []

    # What comes out is an adapter like any other.
    assert "together" in {one["name"] for one in hub.cloister("model", "list")["models"]}
    files = hub.cloister("quantize", "together", "--to", "Q8_0")["files"]
    assert {one["type"] for one in files} >= {"F16", "Q8_0"}
    assert all(one["proof"]["verdict"] == "PASS" for one in files)
    judged = hub.cloister("evaluate", "together", "--dataset", "inbox", "--limit", "40")
    assert {"demo-base", "together"} <= {one["name"] for one in judged["models"]}
