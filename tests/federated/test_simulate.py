"""Simulated federations: the product's own seats, gate and averages, on either engine, as a job too."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from appliance.core.errors import ConfigWrong, PrivacyRefused
from appliance.security.airgap.entering import first_profile
from appliance.security.airgap.filter import LOOPBACK, NONE
from appliance.security.people.orders import actions_of
from federated import checkpoint, course, simulate, simulate_engines, simulated
from federated.layout import parted
from federated.update import opened_update, sealed_update

QUICK: dict[str, Any] = {
    "sites": 3, "rounds": 2, "steps": 1, "engine": "processes", "workers": 1, "held_out": 20,
    "private": False, "batch": 2, "split": "iid", "records": 60, "layers": 1, "targets": ("v_proj",),
}  # fmt: skip


def here(engine: str, folder: str, sites: list[str], workers: int, body: Any) -> None:
    """An engine in this process: the two others only carry calls."""

    def call(function: Any, asked: list[str], *rest: Any) -> Any:
        yield function(folder, asked, *rest)

    body(call)


def play(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> tuple[dict[str, Any], list[Any]]:
    monkeypatch.setattr(simulate_engines, "played", here)
    told: list[Any] = []
    job: Any = SimpleNamespace(
        folder=folder, home=None, id="1", who="x", emit=lambda event, **facts: told.append((event, facts))
    )
    (folder / "world").mkdir(parents=True, exist_ok=True)
    return simulate.run(QUICK | more, job), told


def test_rounds_are_played_judged_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, told = play(tmp_path, monkeypatch)
    assert [one["round"] for one in done["rounds"]] == [1, 2]
    for one in done["rounds"]:
        assert one["sites"] == 3 and one["refused"] == {}
        assert 0 <= one["accuracy"] <= 1 and one["seconds"] >= one["scoring_seconds"] > 0
    assert done["final"]["low"] <= done["rounds"][-1]["accuracy"] <= done["final"]["high"]
    assert done["epsilon_per_site"] is None
    assert json.loads(json.dumps(done)) == done
    lefts = [facts["left"] for event, facts in told if event == "progress" and facts["stage"] == "rounds"]
    assert lefts and lefts[-1] == 0
    assert not (tmp_path / "world").exists()


def test_a_private_simulation_states_what_each_site_would_spend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"private": True, "records": 0, "sample_rate": 0.02, "epsilon": 6.0, "rounds": 1, "sites": 2}
    done, _ = play(tmp_path, monkeypatch, **spec)
    assert 5.5 < done["epsilon_per_site"] <= 6.0
    assert done["rounds"][0]["sites"] == 2


def test_sites_with_too_few_units_take_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrivacyRefused) as refused:
        play(tmp_path, monkeypatch, private=True)
    assert refused.value.message.startswith("Only 0 of 3 sites") and "too few" in refused.value.message


def test_every_update_passes_the_real_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a site that sends NaN and one that sends too much are refused, and the round goes on."""
    real = simulated.answered

    def spoilt(folder: str, sites: list[str], *rest: Any) -> Any:
        answers = []
        for one in real(folder, sites, *rest):
            content = one.content
            if one.site != "site-0003":
                statement, body, _ = opened_update(content)
                packed = bytearray(body)
                packed[:4] = np.array([np.nan if one.site == "site-0001" else 1e6], "<f4").tobytes()
                said = replace(statement, body=hashlib.sha256(packed).hexdigest())
                content = sealed_update(said, bytes(packed), simulated.site_key(one.site).sign)
            answers.append(simulated.Answer(site=one.site, content=content, seconds=0.0))
        return answers

    monkeypatch.setattr(simulated, "answered", spoilt)
    seen: list[Any] = []
    take = course.receive

    def received(*args: Any) -> Any:
        found = take(*args)
        seen.append(getattr(found[1], "code", "admitted"))
        return found

    monkeypatch.setattr(course, "receive", received)
    with pytest.raises(ConfigWrong, match="1 updates were admitted"):
        play(tmp_path, monkeypatch, rounds=1)
    assert sorted(seen) == ["admitted", "norm", "values"]


def test_the_next_adapter_is_the_mean_of_what_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Any] = []
    close = course.close

    def kept(held: Any, state: Any) -> Any:
        _, before = held.last()
        sent = [
            checkpoint.kept_update(held.home, state.number, site, 1, "f32").read(0, held.layout.values)
            for site in sorted(state.admitted)
        ]
        record = close(held, state)
        closed.append((before.adapter, sent, record.weights, held.last()[1].adapter))
        return record

    monkeypatch.setattr(course, "close", kept)
    play(tmp_path, monkeypatch, packing="f32", rounds=1)
    before, sent, weights, after = closed[0]
    mean = np.average(sent, axis=0, weights=[weights[site] for site in sorted(weights)])
    assert np.abs(mean).max() > 1e-4
    np.testing.assert_allclose(after, before + mean, atol=1e-6)


def test_the_next_products_are_the_mean_of_what_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The direct computation: every product formed, their mean cut to its rank by a full SVD."""
    closed: list[Any] = []
    close = course.close

    def kept(held: Any, state: Any) -> Any:
        _, before = held.last()
        sent = {
            site: checkpoint.kept_update(held.home, state.number, site, 1, "f32").read(0, held.layout.values)
            for site in sorted(state.admitted)
        }
        record = close(held, state)
        closed.append((held.layout, before.adapter, sent, record, held.last()[1].adapter))
        return record

    monkeypatch.setattr(course, "close", kept)
    play(tmp_path, monkeypatch, packing="f32", rounds=1, rule="products", learning_rate=0.05)
    layout, before, sent, record, after = closed[0]
    shares = {site: weight / sum(record.weights.values()) for site, weight in record.weights.items()}
    (name,) = [name for name, _ in layout.shapes if ".lora_A" in name]

    def product(vector: Any) -> Any:
        parts = parted(layout, vector)
        return parts[name.replace("lora_A", "lora_B")].astype(np.float64) @ parts[name]

    mean = sum(share * product(before + sent[site]) for site, share in shares.items())
    u, strengths, v = np.linalg.svd(mean)
    rank = parted(layout, after)[name].shape[0]
    nearest = (u[:, :rank] * strengths[:rank]) @ v[:rank]
    assert np.abs(nearest).max() > 1e-4
    np.testing.assert_allclose(product(after), nearest, atol=1e-5 * np.abs(nearest).max())
    assert record.lost == pytest.approx(1e6 * (strengths[rank:] ** 2).sum() / (strengths**2).sum(), abs=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sites": 1}, {"rounds": 0}, {"engine": "odd"}, {"rule": "krum", "sites": 3}, {"odd": 1},
        {"split": "odd"}, {"epsilon": -1.0, "private": True}, {"packing": "i4"}, {"rule": "odd"},
    ],
)  # fmt: skip
def test_what_cannot_be_played_is_refused(
    wrong: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigWrong):
        play(tmp_path, monkeypatch, **wrong)


def test_without_ray_flowers_engine_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate_engines, "find_spec", lambda name: None)
    with pytest.raises(ConfigWrong) as refused:
        simulate.wanted(QUICK | {"engine": "flower"})
    assert "cloister[simulate]" in refused.value.hint and "--engine processes" in refused.value.hint


def test_only_flowers_engine_gets_a_loopback() -> None:
    assert first_profile("simulate", {"engine": "flower"}) is LOOPBACK
    assert first_profile("simulate", {"engine": "processes"}) is NONE


def test_a_real_dataset_needs_two_people_and_made_up_messages_do_not() -> None:
    assert actions_of("simulate", {"dataset": "d"}) == ("train.start", "train.open")
    assert actions_of("simulate", {}) == ("train.start",)


@pytest.mark.slow
def test_processes_play_sites(tmp_path: Path) -> None:
    job: Any = SimpleNamespace(folder=tmp_path, home=None, id="1", who="x", emit=lambda event, **facts: None)
    done = simulate.run(QUICK | {"workers": 2, "rounds": 1}, job)
    assert done["rounds"][0]["sites"] == 3


def test_who_plays_a_site_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it two engines, or one twice, would give other rounds."""
    adapters: list[Any] = []
    close = course.close

    def kept(held: Any, state: Any) -> Any:
        record = close(held, state)
        adapters.append(record.adapter)
        if len(adapters) > 3:
            simulated._played.cache_clear()  # as in a process that has not played these sites before
        return record

    monkeypatch.setattr(course, "close", kept)
    for name in ("one", "several"):
        play(tmp_path / name, monkeypatch, rounds=3)
    assert adapters[:3] == adapters[3:]


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("ray"), reason="Ray is not installed: pip install 'cloister[simulate]'")
def test_flowers_engine_plays_the_same_rounds_in_its_jail(tmp_path: Path) -> None:
    """With the pool the same seeds give the same rounds; Flower's engine must too, from inside the jail."""
    import subprocess
    import sys

    script = tmp_path / "play.py"
    script.write_text(
        "import json, sys\n"
        "from pathlib import Path\n"
        "from types import SimpleNamespace\n"
        "from appliance.core.offline import stay_offline\n"
        "from appliance.security.airgap.filter import PROFILES\n"
        "from appliance.security.airgap.jail import enter\n"
        "if __name__ == '__main__':\n"
        "    stay_offline()\n"
        "    spec = json.loads(sys.argv[1])\n"
        "    enter(PROFILES['loopback' if spec['engine'] == 'flower' else 'none'])\n"
        "    from federated import simulate\n"
        "    quiet = lambda event, **facts: None\n"
        "    job = SimpleNamespace(folder=Path(sys.argv[2]), emit=quiet, home=None, id='1', who='x')\n"
        "    print(json.dumps(simulate.run(spec, job)))\n"
    )
    found = []
    for engine in ("processes", "flower"):
        (tmp_path / engine).mkdir()
        spec = json.dumps(QUICK | {"engine": engine, "targets": ["v_proj"], "rounds": 1})
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(script), spec, str(tmp_path / engine)],
            check=True, stdout=subprocess.PIPE, timeout=180,
        )  # fmt: skip
        found.append(json.loads(done.stdout.splitlines()[-1]))
    assert found[0]["rounds"][0]["accuracy"] == found[1]["rounds"][0]["accuracy"]
