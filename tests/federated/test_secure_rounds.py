"""Secure rounds in the product's own loop: the sum is the plain one, whoever drops out and whenever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from secure_world import World

from federated.secagg.federation import least_threshold
from federated.secagg.privacy import least_together
from federated.secure import attempt, pinned


def equal(world: World, number: int, sites: list[str]) -> None:
    """The round moved the adapter by the plain weighted mean, to one step of the lattice."""
    record = world.record(number)
    assert record is not None and sorted(record.updates) == sites and record.rule == "secure mean"
    np.testing.assert_allclose(world.moved(number), world.mean(number, sites), rtol=0, atol=2 * world.step())


def test_the_sum_is_the_plain_sum_and_nothing_else_is_seen(tmp_path: Path) -> None:
    world = World(tmp_path, settings={"count": 3})
    assert world.run() == 3
    for number in (1, 2, 3):
        equal(world, number, world.names)
    assert sorted(world.trained) == sorted((name, number) for name in world.names for number in (1, 2, 3))
    assert world.refusals() == set()
    # Keys for the next round come with the reveal: two questions a round, one more before the first.
    assert [step for _, step, _ in world.log].count("keys") == 4
    assert world.step() < 1e-5
    # What crossed is masked: as bytes it has next to nothing of the change in it.
    updates = [said for _, step, said in world.log if step == "train" and isinstance(said, bytes)]
    assert len(updates) == 12 and len({bytes(one) for one in updates}) == 12


def test_a_record_says_for_how_many_units_each_site_counted(tmp_path: Path) -> None:
    world = World(tmp_path, settings={"count": 1})
    world.run()
    record = world.record(1)
    assert record is not None
    assert record.weights == {"s1": 7, "s2": 21, "s3": 28, "s4": 42}  # in steps of 7 of at most 200
    assert record.losses == dict.fromkeys(world.names, 1_000_000)


@pytest.mark.parametrize("step", ["keys", "train", "open"])
@pytest.mark.parametrize("way", ["asked", "answered"])
def test_a_site_that_is_lost_at_any_step_does_not_stop_the_others(
    tmp_path: Path, step: str, way: str
) -> None:
    world = World(tmp_path, settings={"count": 2})

    def lost(site: str, at: str, said: Any) -> Any:
        if (site, at) == ("s2", step) or ("s2" in world.gone and site == "s2"):
            world.gone.add("s2")
            return None
        return said

    setattr(world, way, lost)
    assert world.run() == 2
    there = ["s1", "s3", "s4"]
    equal(world, 1, world.names if step == "open" else there)
    equal(world, 2, there)


def test_with_three_sites_a_round_is_begun_anew_when_the_lost_one_is_back(tmp_path: Path) -> None:
    world = World(tmp_path, sites=3, settings={"count": 1})
    seen: list[int] = []

    def lost(site: str, at: str, said: Any) -> Any:
        if (site, at) == ("s2", "train") and not seen:
            seen.append(1)
            world.gone.add("s2")
            return None
        return said

    world.answered = lost
    world.run(looks=3)
    assert world.record(1) is None and attempt.kept(world.course.home, 1) is not None
    world.gone.clear()
    assert world.run() == 1
    equal(world, 1, world.names)
    assert sorted(world.trained) == [("s1", 1), ("s2", 1), ("s3", 1)]  # what was learnt is masked anew


@pytest.mark.parametrize("step", ["keys", "train", "open"])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_coordinator_that_is_killed_goes_on(tmp_path: Path, step: str, after: int) -> None:
    world = World(tmp_path, sites=3, settings={"count": 2})
    answers = []

    def killed(site: str, at: str, said: Any) -> Any:
        if at == step:
            answers.append(site)
            if len(answers) == after:
                raise KeyboardInterrupt
        return said

    world.answered = killed
    with pytest.raises(KeyboardInterrupt):
        world.run()
    world.answered = lambda site, at, said: said
    assert world.run() == 2
    equal(world, 1, world.names)
    equal(world, 2, world.names)
    assert sorted(world.trained) == sorted((name, number) for name in world.names for number in (1, 2))
    vectors = [said for _, at, said in world.log if at == "train" and isinstance(said, bytes)]
    assert len(set(vectors)) >= 6  # no masked vector left twice for two attempts
    if step != "open":
        numbers = {int(one.stem) for one in (tmp_path / "s1" / "secure").glob("*.open")}
        assert len(numbers) == 2


def test_an_interrupted_attempt_has_fresh_masks(tmp_path: Path) -> None:
    world = World(tmp_path, sites=3, settings={"count": 1})

    def killed(site: str, at: str, said: Any) -> Any:
        if (site, at) == ("s3", "train"):
            raise KeyboardInterrupt
        return said

    world.answered = killed
    with pytest.raises(KeyboardInterrupt):
        world.run()
    first = {site: said for site, at, said in world.log if at == "train"}
    before = attempt.kept(world.course.home, 1)
    world.answered = lambda site, at, said: said
    world.log.clear()
    world.run()
    second = {site: said for site, at, said in world.log if at == "train"}
    assert before is not None and set(first) == set(second) == {"s1", "s2", "s3"}
    for site in first:
        one, other = first[site], second[site]
        assert isinstance(one, bytes) and isinstance(other, bytes)
        words, others = (np.frombuffer(part[-3 * 32 - 2 * 176 : -2 * 176], np.uint8) for part in (one, other))
        assert np.mean(words == others) < 0.1  # chance: 1 in 256


def test_a_dropped_site_is_in_no_later_round(tmp_path: Path) -> None:
    world = World(tmp_path, settings={"count": 2})

    def dropped(site: str, at: str, said: Any) -> Any:
        if (site, at) == ("s4", "train"):
            world.drop("s4")
            return None
        return said

    world.answered = dropped
    assert world.run() == 2
    equal(world, 1, ["s1", "s2", "s3"])
    record = world.record(2)
    assert record is not None and sorted(record.updates) == ["s1", "s2", "s3"]


def test_a_round_that_cannot_be_opened_is_skipped(tmp_path: Path) -> None:
    world = World(tmp_path, sites=3, settings={"count": 2})

    def gone(site: str, at: str, said: Any) -> Any:
        return None if (site, at) == ("s3", "open") and world.record(1) is None else said

    world.answered = gone
    assert world.run() == 2
    record = world.record(1)
    assert record is not None and record.rule == "skipped" and record.updates == {}
    assert record.refused == dict.fromkeys(world.names, "unopened")
    assert not world.moved(1).any()
    equal(world, 2, world.names)


def test_weights_and_lattice_hold_for_any_agreement() -> None:
    from world import agreement

    for sites in (3, 5, 100, 255):
        held = agreement(min(sites, 250), secure=True)
        for values in (1, 32, 50_000, 2_000_000, 100_000_000):
            space = pinned.lattice_of(held, values)
            assert space.level >= 64 * values**0.5 or space.bits == 32
        for units in (1, 7, 99, 100, 10_000):
            weight = pinned.weight_of(held, units)
            assert 1 <= weight <= 32
            assert abs(pinned.units_of(held, weight) - min(units, 200)) <= max(4, pinned.units_of(held, 1))


def test_attempts_at_one_round_never_differ_by_one_site() -> None:
    """Who has opened an attempt is in no later one of that round; of every sum that a lying coordinator can
    open, at least two sites have opened it."""
    for sites in range(3, 256):
        threshold = least_threshold(sites)
        assert least_together(sites, threshold, 0) - (sites - threshold) >= 2
