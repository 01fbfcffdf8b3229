"""The audit's mathematics, against published values and against the laws it rests on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from appliance.privacy import accountant
from appliance.privacy.attacks import extraction, gaussian, mechanism, membership, onerun
from appliance.privacy.attacks.verdict import FAIL, NONE, OPEN, PASS, judged, together

RANDOM = np.random.default_rng(3)


def test_one_failure_fails_and_what_does_not_apply_decides_nothing() -> None:
    assert together([PASS, NONE, PASS]) == PASS
    assert together([PASS, OPEN]) == OPEN and together([OPEN, FAIL, PASS]) == FAIL
    assert together([]) == together([NONE]) == OPEN
    assert (judged(0.5, 0.54, 0.55), judged(0.5, 0.6, 0.55), judged(0.6, 0.7, 0.55)) == (PASS, OPEN, FAIL)


# --- A


def test_the_noise_interval_is_that_of_chi_square() -> None:
    assert mechanism.noise_interval(10**5) == pytest.approx((0.9926, 1.0074), abs=1e-4)
    assert mechanism.noise_interval(10**6) == pytest.approx((0.9977, 1.0023), abs=1e-4)


def test_noise_is_judged_over_all_steps_and_step_by_step() -> None:
    count, steps = 20_000, 50
    honest = np.sqrt(RANDOM.chisquare(count, steps) / count)
    assert mechanism.check_noise(honest, count).right
    assert not mechanism.check_noise(honest * 0.99, count).right, "1 % less everywhere"
    one = honest.copy()
    one[7] = 0.5
    seen = mechanism.check_noise(one, count)
    assert (seen.right, seen.wrong, seen.worst) == (False, 1, 0.5)
    assert not mechanism.check_noise([*honest, math.nan], count).right


def test_batches_must_be_binomial_in_size_and_in_spread() -> None:
    rate, units, steps = 0.2, 500, 60
    honest = RANDOM.binomial(units, rate, steps)
    assert mechanism.check_batches(honest, units, rate).right
    assert not mechanism.check_batches([100] * steps, units, rate).right, "fixed batches are not Poisson"
    assert not mechanism.check_batches(honest, units, 0.22).right
    assert not mechanism.check_batches([*honest, 400], units, rate).right
    assert mechanism.check_batches([units] * 5, units, 1.0).right
    small = RANDOM.binomial(40, 0.03, 200)
    assert mechanism.check_batches(small, 40, 0.03).right


def test_honest_runs_are_hardly_ever_called_wrong() -> None:
    wrong = sum(
        not mechanism.check_batches(RANDOM.binomial(300, 0.1, 40), 300, 0.1).right for _ in range(400)
    )
    assert wrong <= 4
    wrong = sum(
        not mechanism.check_noise(np.sqrt(RANDOM.chisquare(500, 30) / 500), 500).right for _ in range(400)
    )
    assert wrong <= 4


def test_noise_that_comes_twice_is_correlated() -> None:
    first, second = RANDOM.standard_normal((2, 100_000))
    assert mechanism.check_independent([(first, second)]).right
    assert not mechanism.check_independent([(first, second), (first, first)]).right
    assert not mechanism.check_independent([(first, 0.1 * first + second)]).right
    nothing = np.zeros(1000)
    assert not mechanism.check_independent([(nothing, nothing)]).right


def test_a_norm_beyond_the_bound_is_seen() -> None:
    assert mechanism.check_norms([0.5, 1.0]).right
    assert not mechanism.check_norms([0.5, 1.0001]).right
    assert not mechanism.check_norms([math.nan]).right


# --- B


def slow_p_value(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Corollary 5.4 as it stands, term by term: P[>= v] + 2 m delta max_i P[v - i <= . < v] / i."""
    q = 1 / (1 + math.exp(-epsilon))
    alpha = max(
        (sum(binom.pmf(k, r, q) for k in range(max(0, v - i), v)) / i for i in range(1, v + 1)), default=0.0
    )
    return min(1.0, sum(binom.pmf(k, r, q) for k in range(v, r + 1)) + 2 * m * delta * alpha)


@pytest.mark.parametrize(
    ("m", "r", "v", "epsilon", "delta"),
    [(100, 40, 30, 0.4, 1e-3), (60, 60, 55, 2.0, 1e-5), (50, 20, 0, 1.0, 1e-2), (80, 30, 30, 3.0, 0.0)],
)
def test_the_p_value_is_that_of_the_paper(m: int, r: int, v: int, epsilon: float, delta: float) -> None:
    assert onerun.p_value(m, r, v, epsilon, delta) == pytest.approx(
        slow_p_value(m, r, v, epsilon, delta), rel=1e-9
    )


@pytest.mark.parametrize(
    ("m", "r", "v", "delta", "published"),
    [
        (1000, 100, 75, 1e-4, 0.673),  # Steinke et al. 2023, appendix D
        (100_000, 1510, 1439, 1e-5, 2.675),  # their section 7; printed cut, not rounded
        (100, 100, 100, 1e-5, 3.49),
        (500, 500, 500, 1e-5, 5.10),
        (1000, 1000, 1000, 1e-5, 5.78),
        (5000, 5000, 5000, 1e-5, 7.28),
        (1000, 200, 140, 1e-5, 0.58),
        (1000, 200, 160, 1e-5, 1.09),
        (1000, 200, 180, 1e-5, 1.80),
        (1000, 200, 200, 1e-5, 4.17),
        (500, 100, 90, 1e-5, 1.63),
    ],
)
def test_the_bound_gives_published_values(m: int, r: int, v: int, delta: float, published: float) -> None:
    digits = 1e-3 if published in (0.673, 2.675) else 6e-3
    assert onerun.epsilon_bound(m, r, v, delta=delta) == pytest.approx(published, abs=digits)


def test_chance_refutes_nothing_and_the_bound_is_below_its_ceiling() -> None:
    assert onerun.epsilon_bound(1000, 200, 100, delta=1e-5) == 0.0
    inside = RANDOM.random(1000) < 0.5
    blind = onerun.bound(RANDOM.standard_normal(1000), inside, delta=1e-5)
    open_book = onerun.bound(inside + 0.1 * RANDOM.standard_normal(1000), inside, delta=1e-5)
    assert blind.epsilon < 0.3 and open_book.epsilon == pytest.approx(open_book.ceiling)
    assert (open_book.right, open_book.canaries) == (open_book.guesses, 1000)


def test_randomised_response_is_not_called_worse_than_it_is() -> None:
    """The mechanism of the theorem's equality: each coin is told rightly with e^eps / (1 + e^eps)."""
    epsilon, alarms = 1.0, 0
    for _ in range(200):
        inside = RANDOM.random(400) < 0.5
        told = inside ^ (RANDOM.random(400) > 1 / (1 + math.exp(-epsilon)))
        scores = told + 1e-6 * RANDOM.random(400)
        alarms += onerun.bound(scores, inside, delta=0.0).epsilon > epsilon
    assert alarms <= 20, "5 % are allowed"


# --- C


def test_epsilon_of_mu_is_that_of_the_accountant() -> None:
    for steps, sigma in ((1, 1.0), (20, 5.0), (10, 0.8)):
        run = accountant.Steps(noise_multiplier=sigma, sample_rate=1.0, steps=steps)
        exact = accountant.epsilon([run], 1e-5)
        assert gaussian.epsilon_of(math.sqrt(steps) / sigma, 1e-5) == pytest.approx(exact, rel=2e-3)
    assert gaussian.epsilon_of(0.0, 1e-5) == 0.0 and gaussian.epsilon_of(100.0, 1e-5) == math.inf


def test_the_lower_limit_of_mu_covers() -> None:
    below = 0
    for _ in range(400):
        inside = RANDOM.random(400) < 0.5
        scores = RANDOM.standard_normal(400) * 3 + 2.4 * inside
        below += gaussian.separation(scores, inside).low <= 0.8
    assert 365 <= below <= 392, "95 % of 400, three standard errors wide"


def test_without_noise_mu_is_infinite() -> None:
    inside = np.arange(10) % 2 == 0
    assert gaussian.separation(np.where(inside, 3.0, 0.0), inside).low == math.inf
    assert gaussian.separation(np.zeros(10), inside).mu == 0.0


def test_what_an_estimate_can_see_shrinks_with_more_canaries() -> None:
    few, many = (gaussian.seen_from(0.6, count, 3.0, 1e-5) for count in (200, 5000))
    assert 1.0 < many < few < 3.0


# --- D


def test_auc_and_its_interval() -> None:
    members, others = RANDOM.standard_normal(300) + 0.5, RANDOM.standard_normal(400)
    pairs = (members[:, None] > others).mean()
    assert membership.auc(members, others) == pytest.approx(pairs)
    assert membership.auc(np.ones(3), np.ones(5)) == 0.5
    seen = membership.auc_interval(members, others)
    spread = math.sqrt(701 / (12 * 300 * 400))  # Mann-Whitney, near one half
    assert seen.low < pairs < seen.high
    assert seen.high - seen.low == pytest.approx(2 * 1.96 * spread, rel=0.15)
    tied = membership.auc_interval(np.repeat([0.0, 1.0], 50), np.repeat([0.0, 1.0], [60, 40]))
    assert tied.low < tied.value == 0.55 < tied.high


def test_clopper_pearson_by_its_definition() -> None:
    seen = membership.clopper_pearson(7, 120)
    assert binom.sf(6, 120, seen.low) == pytest.approx(0.025)
    assert binom.cdf(7, 120, seen.high) == pytest.approx(0.025)
    assert membership.clopper_pearson(0, 10).low == 0.0 and membership.clopper_pearson(10, 10).high == 1.0


def test_the_rate_at_one_percent_lets_no_more_than_one_percent_through() -> None:
    others = RANDOM.permutation(1000).astype(float)
    members = np.array([989.0, 989.5, 990.5, 2000.0])
    assert membership.tpr_at(members, others).value == 0.75
    assert (others > 989).sum() == 10
    assert membership.tpr_at(others, others).value == 0.01


def test_epsilon_seen_holds_for_the_gaussian_mechanism_and_sees_more() -> None:
    mu = 1.0
    claim = gaussian.epsilon_of(mu, 1e-5)
    found = [
        membership.epsilon_seen(RANDOM.standard_normal(1000) + mu, RANDOM.standard_normal(1000), delta=1e-5)
        for _ in range(50)
    ]
    assert max(found) < claim and np.median(found) > 0.5
    assert membership.epsilon_seen(RANDOM.standard_normal(1000), RANDOM.standard_normal(1000), delta=0) < 0.5
    assert membership.epsilon_ceiling(1000, 1000, delta=1e-5) == pytest.approx(5.02, abs=0.01)
    apart = membership.epsilon_seen(RANDOM.random(1000) + 5, RANDOM.random(1000), delta=1e-5)
    assert apart == pytest.approx(5.02, abs=0.01)
    low_tail = np.where(RANDOM.random(1000) < 0.2, -9.0, 0.0) + RANDOM.random(1000)
    assert membership.epsilon_seen(RANDOM.random(1000), low_tail, delta=1e-5) > 2, "the other direction"
    assert membership.allowed_tpr(0.01, 3.0, 1e-5) == pytest.approx(0.01 * math.exp(3) + 1e-5)


def test_min_k_plus_is_the_mean_of_the_lowest_standardised_tokens() -> None:
    logits = RANDOM.standard_normal((20, 7)).astype(np.float32)
    tokens = RANDOM.integers(0, 7, 20)
    scores = []
    for row, token in zip(logits.astype(float), tokens, strict=True):
        share = np.exp(row) / np.exp(row).sum()
        mean = (share * np.log(share)).sum()
        deviation = math.sqrt((share * (np.log(share) - mean) ** 2).sum())
        scores.append((math.log(share[token]) - mean) / deviation)
    assert membership.min_k_plus(logits, tokens) == pytest.approx(np.sort(scores)[:4].mean())
    assert np.isfinite(membership.min_k_plus(np.zeros((20, 7), np.float32), tokens)), "no spread at all"


def test_words_that_give_the_side_away_make_an_attack_void() -> None:
    words = ["bill", "tablet", "visit", "form", "letter", "nurse"]

    def says(count: int, more: str = "") -> list[str]:
        return [" ".join([*RANDOM.choice(words, 6), more]) for _ in range(count)]

    assert not membership.voids(membership.blind_auc(says(150), says(150)))
    assert membership.voids(membership.blind_auc(says(150, "january"), says(150)))


def test_recital_needs_more_than_chance() -> None:
    assert extraction.cut_points(51) == (25, 26) and extraction.cut_points(400) == (50, 50)
    assert extraction.beyond_chance(12, 100, 0, 100) and not extraction.beyond_chance(12, 100, 10, 100)


@pytest.mark.parametrize(("edits", "near"), [(0, True), (4, True), (5, False), (40, False)])
def test_recital_is_given_up_only_when_it_is_too_late(edits: int, near: bool) -> None:
    target = list(range(40))
    written = [*range(40)]
    written[5 : 5 + edits] = [99] * edits
    following = extraction.Following(target)
    taken = []
    for token in written:
        following.add(token)
        taken.append(following.lost)
        if following.lost:
            break
    assert (following.done and following.near) is near
    assert edits < 40 or len(taken) < 20, "hopeless ones end early"
    shifted = extraction.Following(target)
    for token in [7, 7, *range(38)]:
        shifted.add(token)
    assert shifted.near, "two put in front and two short is four edits"
