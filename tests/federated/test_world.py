"""Seeded federations in one process: whatever the link and the machines do, no invariant breaks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from world import LAYOUT, World

from federated import checkpoint, description
from federated.aggregate import weights
from federated.packing import unpack, with_feedback
from federated.update import opened_update


def check(world: World) -> int:
    """The invariants; returns how many rounds were committed.

    A round commits once, with a quorum, on updates that their sites sent for it; the adapter is what plain
    numpy makes of them; a site sends one answer to a round and is charged at least what it trained.
    """
    adapter, left, number = world.start, np.zeros_like(world.start), 0
    settings = world.federation.rounds
    while record := checkpoint.read_record(world.course.home, number + 1, world.federation.coordinator_key):
        number += 1
        assert len(record.updates) >= settings.quorum
        assert record.federation == description.digest(world.file)
        units, changes = {}, {}
        for site, body in record.updates.items():
            (content,) = world.sent[site, number]
            statement, packed, _ = opened_update(content)
            assert hashlib.sha256(packed).hexdigest() == body
            units[site], changes[site] = statement.units, unpack(packed, LAYOUT.values, settings.packing)
        counted = weights(units, settings.weight_clamp)
        assert counted == record.weights
        change = np.average(
            [changes[site] for site in sorted(changes)],
            axis=0,
            weights=[counted[site] for site in sorted(changes)],
        )
        content, left = with_feedback(change.astype(np.float32), left, settings.packing, np.inf)
        adapter = adapter + unpack(content, LAYOUT.values, settings.packing)
        _, state = world.course.last()
        assert state.adapter.shape == adapter.shape
        if world.course.last()[0] == number:
            np.testing.assert_allclose(state.adapter, adapter, atol=3e-3)
    assert all(len(contents) == 1 for contents in world.sent.values())
    for site in world.seats:
        assert world.trained[site] <= world.charged[site] <= world.budget[site]
    return number


def test_without_faults_all_rounds_are_done(tmp_path: Path) -> None:
    world = World(folder=tmp_path, seed=1, lossy=False)
    world.run()
    assert check(world) == 4
    assert world.told == []
    assert dict(world.trained) == dict.fromkeys(world.seats, 4)


@pytest.mark.parametrize("seed", range(20))
def test_with_faults_no_invariant_breaks(tmp_path: Path, seed: int) -> None:
    world = World(folder=tmp_path, seed=seed)
    world.run()
    check(world)


def test_faults_are_really_made(tmp_path: Path) -> None:
    """The control of the test above: over its seeds every kind of trouble comes up."""
    told: set[str] = set()
    rounds, lost = 0, 0
    for seed in range(20):
        world = World(folder=tmp_path / str(seed), seed=seed)
        world.run()
        rounds += check(world)
        told |= {code for _, code in world.told}
        lost += sum(world.charged.values()) - sum(world.trained.values())
    assert told >= {"budget", "round"} and told & {"forged", "malformed", "stranger"}
    assert rounds >= 40 and lost >= 10
