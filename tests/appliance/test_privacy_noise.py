"""The noise is what the accountant assumes it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from appliance.privacy.noise import Drawing, Keystream, discrete_gaussian


@pytest.mark.parametrize("sigma", [0.7, 3.0, 40.0])
def test_discrete_gaussian_has_the_exact_probabilities(sigma: float) -> None:
    drawn = discrete_gaussian(200_000, sigma, Keystream())
    reach = int(4 * sigma) + 1
    support = np.arange(-20 * reach, 20 * reach + 1)
    weights = np.exp(-(support**2) / (2 * sigma**2))
    expected = weights / weights.sum()
    inside = np.abs(support) <= reach
    counts = np.array([np.sum(drawn == value) for value in support[inside]], dtype=float)
    outside = drawn.size - counts.sum()
    seen = np.append(counts, outside)
    model = np.append(expected[inside], 1 - expected[inside].sum()) * drawn.size
    keep = model >= 5
    seen, model = np.append(seen[keep], seen[~keep].sum()), np.append(model[keep], model[~keep].sum())
    if model[-1] < 5:
        seen, model = seen[:-1], model[:-1] * seen[:-1].sum() / model[:-1].sum()
    assert stats.chisquare(seen, model).pvalue > 1e-4


def test_at_lattice_scale_it_is_the_continuous_gaussian() -> None:
    sigma = 2.0 * 2**20
    drawn = discrete_gaussian(100_000, sigma, Keystream()) / sigma
    assert stats.kstest(drawn, "norm").pvalue > 1e-4


def test_two_streams_never_agree() -> None:
    first, second = (discrete_gaussian(1000, 2.0**20, Keystream()) for _ in range(2))
    assert np.mean(first == second) < 0.01
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2


def test_uniforms_are_uniform_and_never_zero() -> None:
    drawn = Keystream().uniform(200_000)
    assert drawn.min() > 0 and drawn.max() < 1
    assert stats.kstest(drawn, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("ahead", [False, True])
def test_what_is_drawn_beside_a_gpu_is_the_same_noise_and_never_twice(ahead: bool) -> None:
    drawing = Drawing(30_001, 2.0**20, ahead=ahead)
    forgotten = drawing.begin()  # a step that failed: what it drew is not added, and not drawn again
    drawn = [drawing.begin()(), drawing.begin()(), forgotten()]
    for place, one in enumerate(drawn):
        assert len(one) == 30_001 and abs(np.std(one) / 2.0**20 - 1) < 0.03
        for other in drawn[place + 1 :]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.05
