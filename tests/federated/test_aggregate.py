"""Averages against plain numpy, slice by slice, in any order, and with one bad site among them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.core.errors import ConfigWrong
from federated import aggregate
from federated.aggregate import Packed, Rule, average, least_sites, weights
from federated.packing import BLOCK
from federated.products import mean_product
from federated.server_step import fedadam, fedavg

VALUES = 5 * BLOCK + 17


def updates(
    count: int, *, bad: NDArray[np.float32] | None = None
) -> tuple[list[Packed], NDArray[np.float64]]:
    draw = np.random.default_rng(count)
    rows = draw.normal(1.0, 0.1, size=(count, VALUES)).astype(np.float32)
    if bad is not None:
        rows[1] = bad
    made = [
        Packed(site=f"s{at:03}", weight=at + 1, read=lambda start, end, row=row: row[start:end])
        for at, row in enumerate(rows)
    ]
    return made, rows.astype(np.float64)


def test_the_mean_is_weighted() -> None:
    made, rows = updates(4)
    expected = np.average(rows, axis=0, weights=[1, 2, 3, 4])
    np.testing.assert_allclose(average("mean", made, VALUES), expected, rtol=1e-6)


@pytest.mark.parametrize("count", [5, 6, 11])
def test_median_and_trimmed_mean(count: int) -> None:
    made, rows = updates(count)
    np.testing.assert_allclose(average("median", made, VALUES), np.median(rows, axis=0), rtol=1e-6)
    cut = int(0.2 * count)
    expected = np.sort(rows, axis=0)[cut : count - cut].mean(axis=0)
    np.testing.assert_allclose(average("trimmed-mean", made, VALUES), expected, rtol=1e-6)


def test_krum_takes_the_update_with_the_nearest_neighbours() -> None:
    made, rows = updates(7)
    apart = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    scores = [np.sort(np.delete(row, at))[: 7 - 2 - 2].sum() for at, row in enumerate(apart)]
    chosen = average("krum", made, VALUES)
    np.testing.assert_allclose(chosen, rows[int(np.argmin(scores))], rtol=1e-6)


@pytest.mark.parametrize("rule", ["mean", "trimmed-mean", "median", "krum"])
def test_order_and_slices_change_no_byte(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = updates(9)
    whole = average(rule, made, VALUES)
    assert average(rule, made[::-1], VALUES).tobytes() == whole.tobytes()
    asked: list[int] = []
    monkeypatch.setattr(aggregate, "_BUDGET", 9 * BLOCK)
    sliced = [
        Packed(
            site=one.site,
            weight=one.weight,
            read=lambda a, b, one=one: (asked.append(b - a), one.read(a, b))[1],
        )
        for one in made
    ]
    np.testing.assert_allclose(average(rule, sliced, VALUES), whole, rtol=1e-6)
    assert max(asked) <= 9 * BLOCK if rule in ("mean", "krum") else max(asked) <= BLOCK


@pytest.mark.parametrize("rule", ["trimmed-mean", "median", "krum"])
@pytest.mark.parametrize("lie", [1e6, -10.0])
def test_one_bad_site_of_seven_is_outweighed(rule: Rule, lie: float) -> None:
    made, _ = updates(7, bad=np.full(VALUES, lie, dtype=np.float32))
    found = average(rule, made, VALUES)
    assert abs(float(found.mean()) - 1.0) < 0.05
    assert abs(float(average("mean", made, VALUES).mean()) - 1.0) > 0.5  # the control


def test_too_few_for_a_rule_are_refused() -> None:
    for rule, least in (("krum", 5), ("trimmed-mean", 5), ("median", 3)):
        assert least_sites(rule) == least
        with pytest.raises(ConfigWrong):
            average(rule, updates(least - 1)[0], VALUES)
        average(rule, updates(least)[0], VALUES)


def test_a_claim_to_be_large_is_clamped() -> None:
    assert weights({"a": 10, "b": 12, "c": 10**9}, 2.0) == {"a": 10, "b": 12, "c": 24}
    with pytest.raises(ConfigWrong):
        weights({"a": 1}, 0.5)


def again(
    pairs: list[tuple[NDArray[np.float64], NDArray[np.float64]]], shares: list[float]
) -> Callable[[], Iterator[tuple[float, NDArray[np.float64], NDArray[np.float64]]]]:
    """The pairs with their shares, as often as asked."""
    return lambda: ((share, b, a) for share, (b, a) in zip(shares, pairs, strict=True))


def test_the_mean_of_products_is_the_nearest_of_its_rank() -> None:
    draw = np.random.default_rng(0)
    pairs = [(draw.normal(size=(30, 4)), draw.normal(size=(4, 20))) for _ in range(3)]
    shares = [0.5, 0.3, 0.2]
    whole = sum(share * b @ a for share, (b, a) in zip(shares, pairs, strict=True))
    b, a, lost = mean_product(again(pairs, shares))
    strengths = np.linalg.svd(whole, compute_uv=False)
    assert np.linalg.norm(whole - b @ a) == pytest.approx(np.sqrt((strengths[4:] ** 2).sum()))
    assert lost == pytest.approx((strengths[4:] ** 2).sum() / (strengths**2).sum())
    naive = sum(s * b for s, (b, _) in zip(shares, pairs, strict=True)) @ sum(
        s * a for s, (_, a) in zip(shares, pairs, strict=True)
    )
    assert np.linalg.norm(whole - b @ a) < np.linalg.norm(whole - naive)


@pytest.mark.parametrize("sites", [40, 400])
@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0])
def test_many_sites_come_as_near_as_the_direct_computation(sites: int, spread: float) -> None:
    """From sites that agree to a spectrum so flat that no rank is the natural one."""
    draw = np.random.default_rng(sites)
    common = draw.normal(size=(60, 4)), draw.normal(size=(4, 90))
    pairs = [
        (common[0] + spread * draw.normal(size=(60, 4)), common[1] + spread * draw.normal(size=(4, 90)))
        for _ in range(sites)
    ]
    shares = draw.dirichlet(np.ones(sites))
    whole = sum(share * b @ a for share, (b, a) in zip(shares, pairs, strict=True))
    strengths = np.linalg.svd(whole, compute_uv=False)
    b, a, lost = mean_product(again(pairs, shares.tolist()))
    nearest = np.sqrt((strengths[4:] ** 2).sum())
    assert np.linalg.norm(whole - b @ a) <= nearest * (1 + 1e-4) + 1e-9
    assert lost == pytest.approx((strengths[4:] ** 2).sum() / (strengths**2).sum(), rel=0.2, abs=1e-12)
    assert b.shape == (60, 4) and a.shape == (4, 90)


def test_memory_of_a_mean_of_products_does_not_grow_with_the_sites() -> None:
    """Each pair is made when it is asked for, as course.py reads it from the disk."""

    def most_held(sites: int) -> int:
        def pairs() -> Iterator[tuple[float, NDArray[np.float64], NDArray[np.float64]]]:
            for site in range(sites):
                draw = np.random.default_rng(site)
                yield 1 / sites, draw.normal(size=(300, 4)), draw.normal(size=(4, 300))

        tracemalloc.start()
        mean_product(pairs)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert most_held(400) < 1.2 * most_held(10)


def test_with_the_same_a_nothing_is_lost() -> None:
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(4, 20))
    pairs = [(draw.normal(size=(30, 4)), shared) for _ in range(3)]
    b, a, lost = mean_product(again(pairs, [1 / 3] * 3))
    assert lost < 1e-20
    np.testing.assert_allclose(b @ a, sum(b for b, _ in pairs) / 3 @ shared, atol=1e-12)


def test_pairs_of_zeros_stay_zeros() -> None:
    b, a, lost = mean_product(again([(np.zeros((5, 2)), np.ones((2, 3)))] * 2, [0.5, 0.5]))
    assert not b.any() and lost == 0.0 and np.isfinite(a).all()


def test_fedadam_is_the_papers() -> None:
    adapter = np.zeros(3, dtype=np.float32)
    first, second, moments = np.zeros(3), np.zeros(3), None
    expected = np.zeros(3)
    for change in (np.array([0.1, -0.2, 0.0]), np.array([0.1, 0.2, 0.3])):
        adapter, moments = fedadam(adapter, change.astype(np.float32), moments, 0.01)
        first, second = 0.9 * first + 0.1 * change, 0.99 * second + 0.01 * change**2
        expected = expected + 0.01 * first / (np.sqrt(second) + 1e-3)
        np.testing.assert_allclose(adapter, expected, rtol=1e-5)
    np.testing.assert_allclose(fedavg(adapter, np.ones(3, dtype=np.float32), 0.5), expected + 0.5, rtol=1e-5)
    assert all(a is not b for a, b in pairwise([adapter, moments.first]))
