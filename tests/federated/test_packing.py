"""What packing keeps, what it loses, and that the loss does not add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from federated.packing import (
    BLOCK,
    PACKINGS,
    Packing,
    norm,
    pack,
    packed_size,
    part,
    unpack,
    unpack_part,
    with_feedback,
)

VECTORS = arrays(
    np.float32,
    st.integers(1, 3 * BLOCK),
    elements=st.floats(-1e4, 1e4, width=32),
)
_ERROR = {"f32": 0.0, "f16": 2.0**-11, "i8": 1 / 254 + 2.0**-11}


@given(VECTORS, st.sampled_from(PACKINGS))
def test_what_is_unpacked_is_near_what_was_packed(vector: np.ndarray, packing: Packing) -> None:
    content = pack(vector, packing)
    assert len(content) == packed_size(vector.size, packing)
    again = unpack(content, vector.size, packing)
    for start in range(0, vector.size, BLOCK):
        block, other = vector[start : start + BLOCK], again[start : start + BLOCK]
        largest = float(np.abs(block).max())
        least = 6.1e-5 if packing == "f16" else float(np.abs(vector).max()) * 2.0**-14
        assert np.abs(block - other).max() <= _ERROR[packing] * 1.01 * max(largest, least)


@given(VECTORS, st.sampled_from(PACKINGS), st.data())
def test_a_slice_is_the_same_part(vector: np.ndarray, packing: Packing, data: st.DataObject) -> None:
    content = pack(vector, packing)
    start = BLOCK * data.draw(st.integers(0, (vector.size - 1) // BLOCK))
    end = data.draw(st.integers(start, vector.size))
    some = unpack_part(content[:4], content[slice(*part(packing, start, end))], end - start, packing)
    np.testing.assert_array_equal(some, unpack(content, vector.size, packing)[start:end])


def test_bytes_are_at_most_27_hundredths_of_float32() -> None:
    assert packed_size(100_000, "i8") / packed_size(100_000, "f32") < 0.255


@pytest.mark.parametrize("packing", ["f16", "i8"])
def test_what_rounding_takes_comes_later(packing: Packing) -> None:
    draw = np.random.default_rng(1)
    changes = [draw.normal(scale=1e-3, size=1000).astype(np.float32) for _ in range(50)]
    left, sent, alone = None, np.zeros(1000), np.zeros(1000)
    for change in changes:
        content, left = with_feedback(change, left, packing, 10.0)
        sent += unpack(content, 1000, packing)
        alone += unpack(pack(change, packing), 1000, packing)
    whole = np.sum(changes, axis=0, dtype=np.float64)
    assert np.abs(sent - whole).max() < 1.01 * np.abs(left).max() + 1e-6
    assert norm((sent - whole).astype(np.float32)) < 0.3 * norm((alone - whole).astype(np.float32))


@given(VECTORS, st.sampled_from(PACKINGS), st.floats(1e-3, 10.0))
def test_what_is_sent_is_within_the_bound(vector: np.ndarray, packing: Packing, bound: float) -> None:
    content, _ = with_feedback(vector, vector / 3, packing, bound)
    assert norm(unpack(content, vector.size, packing)) <= bound


@pytest.mark.parametrize("packing", PACKINGS)
def test_what_is_not_finite_is_not_packed(packing: Packing) -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            pack(np.array([0.0, bad], dtype=np.float32), packing)


def test_other_lengths_are_refused() -> None:
    content = pack(np.ones(10, dtype=np.float32), "i8")
    for other in (content[:-1], content + b"\0"):
        with pytest.raises(ValueError, match="length"):
            unpack(other, 10, "i8")
    with pytest.raises(ValueError, match="length"):
        with_feedback(np.ones(3, dtype=np.float32), np.ones(4, dtype=np.float32), "i8", 1.0)
