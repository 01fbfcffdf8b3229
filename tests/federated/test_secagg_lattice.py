"""The lattice: sums cannot wrap, norms are kept for certain, rounding is right on average."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.errors import ConfigWrong, DataRejected
from appliance.privacy.noise import Keystream
from federated.secagg.lattice import Lattice, decode, encode, most_level, reach, room, weight_of
from federated.secagg.masks import words


def of(**other: Any) -> Lattice:
    given: dict[str, Any] = {
        "bits": 24,
        "values": 100,
        "clip": 1.0,
        "scale": 5000.0,
        "level": 2000,
        "sites": 10,
    }
    return Lattice(**{**given, **other})


def test_a_lattice_whose_sum_could_wrap_is_none() -> None:
    assert room(16) == 32767
    assert reach(of(bits=16, level=3276)) == 32760
    with pytest.raises(ConfigWrong, match="32,770") as none:
        of(bits=16, level=3277)
    assert "level of 3276" in none.value.hint
    with pytest.raises(ConfigWrong) as none:
        of(bits=16, level=410, most=8)
    assert "level of 409" in none.value.hint
    assert reach(of(level=1, sigma=50.0)) == 10 + 2214  # 14 x 50 x sqrt(10), rounded up
    with pytest.raises(ConfigWrong, match="hold"):
        of(bits=16, level=3276, sigma=1.0)
    fits = of(bits=16, level=100, most=3, sigma=4.0)
    assert of(bits=16, level=most_level(fits), most=3, sigma=4.0)
    with pytest.raises(ConfigWrong):
        of(bits=16, level=most_level(fits) + 1, most=3, sigma=4.0)


@pytest.mark.parametrize(
    "wrong",
    [{"bits": 8}, {"values": 0}, {"level": 0}, {"sites": 0}, {"most": 0}, {"clip": 0.0},
     {"scale": float("nan")}, {"clip": float("inf")}, {"sigma": -1.0}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigWrong):
        of(**wrong)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([0.0, 0.01, 0.999, 1.0, 1.5, 1e6]),
    values=st.integers(1, 300),
    scale=st.sampled_from([40.0, 100.0, 5000.0]),
    rounding=st.sampled_from(["nearest", "stochastic"]),
)
def test_no_integers_are_longer_than_the_sensitivity_says(
    seed: int, size: float, values: int, scale: float, rounding: Any
) -> None:
    space = of(values=values, scale=scale)
    change = np.random.default_rng(seed).normal(size=values).astype(np.float32)
    change *= np.float32(size) / max(np.float32(np.linalg.norm(change)), np.float32(1e-30))
    found = encode(change, space, rounding=rounding, stream=Keystream(seed.to_bytes(32, "big")))
    assert sum(int(one) ** 2 for one in found.integers) <= space.norm**2
    assert int(np.abs(found.integers).max()) <= space.level
    assert found.norm == pytest.approx(size, rel=1e-4)


def test_what_is_decoded_is_the_weighted_mean_to_half_a_step() -> None:
    space = of(most=9)
    draw = np.random.default_rng(0)
    changes = [draw.normal(size=100).astype(np.float32) * np.float32(0.05) for _ in range(3)]
    weights = [1, 4, 9]
    total = sum(
        encode(change, space, rounding="nearest").integers * weight
        for change, weight in zip(changes, weights, strict=True)
    )
    mean = decode(words(np.asarray(total), 24), space, weight=14)
    exact = np.average(np.stack(changes).astype(np.float64), axis=0, weights=weights)
    assert np.abs(mean - exact).max() <= 0.5 / space.scale + 1e-12


def test_stochastic_rounding_is_right_on_average_and_nearest_is_not() -> None:
    """4,000 turns: the mean of a value 0.3 steps above is within 5 standard errors (0.036)."""
    space = of(values=4000)
    change = np.full(4000, 0.3 / space.scale, dtype=np.float32)
    mean = encode(change, space, stream=Keystream(bytes(32))).integers.mean()
    assert abs(mean - 0.3) < 0.036
    assert encode(change, space, rounding="nearest").integers.any() == np.False_
    below = encode(-change, space, stream=Keystream(bytes(32))).integers
    assert abs(below.mean() + 0.3) < 0.036 and set(np.unique(below)) == {-1, 0}


def test_clipping_keeps_the_direction_and_levels_are_counted() -> None:
    space = of(values=4, scale=1000.0)
    found = encode(np.array([3, 0, 4, 0], np.float32), space, rounding="nearest")
    assert found.integers.tolist() == [600, 0, 800, 0] and found.norm == 5.0 and found.cut == 0
    low = of(values=4, scale=1000.0, level=700)
    found = encode(np.array([3, 0, 4, 0], np.float32), low, rounding="nearest")
    assert found.integers.tolist() == [600, 0, 700, 0] and found.cut == 1


def test_what_cannot_be_encoded_is_refused() -> None:
    for wrong in (np.zeros(99), np.full(100, np.nan), np.full(100, np.inf)):
        with pytest.raises(DataRejected):
            encode(wrong.astype(np.float32), of())
    for coarse in ({"values": 100_000, "scale": 20.0}, {"scale": 3e9}):
        with pytest.raises(ConfigWrong, match="too coarse or too fine"):
            of(**coarse)


def test_weights_are_clamped() -> None:
    space = of(most=9)
    assert [weight_of(records, space) for records in (-5, 0, 1, 9, 10**9)] == [1, 1, 1, 9, 9]
