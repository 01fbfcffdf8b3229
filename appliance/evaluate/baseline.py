"""Yardsticks without a language model: they can win on short messages, and a buyer must see it.

Only `python -m bench chain` uses these, never the product's own evaluation job. Comparing several
models on private records is itself a release of those records: `dp_linear` says what its one model
costs, but its settings, like the choice of the best of several rows in a table, would have to be
charged on top. On public records (the benchmark) nothing is charged; `majority` and
`tfidf_logistic` have no privacy at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.core.errors import DataRejected, PrivacyRefused
from appliance.privacy import noise

Floats = NDArray[np.float64]
Predictor = Callable[[Sequence[str]], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class LinearPrivacy:
    """What a DP linear model costs: `epsilon` at `delta` for one `unit` with all of its records."""

    epsilon: float
    delta: float
    noise_multiplier: float
    steps: int
    max_grad_norm: float
    units: int
    accountant: str = "analytic Gaussian mechanism (Balle and Wang 2018), full batch"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class LinearSettings:
    """Fixed in advance on public data, so that choosing them costs nothing."""

    features: int = 4096
    steps: int = 60
    max_grad_norm: float = 0.5
    learning_rate: float = 128.0
    records_per_unit: int = 64


def majority(answers: NDArray[np.int64]) -> int:
    """The most frequent class; the smallest of equals.

    Raises:
        DataRejected: there are no answers.
    """
    if len(answers) == 0:
        raise DataRejected("There are no training records.", "Import records first.")
    return int(np.bincount(answers).argmax())


def tfidf_logistic(texts: Sequence[str], answers: NDArray[np.int64]) -> Predictor:
    """TF-IDF over words and pairs of words, then logistic regression. No privacy."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000))
    model.fit(list(texts), answers)
    return lambda asked: np.asarray(model.predict(list(asked)), dtype=np.int64)


def dp_linear(
    texts: Sequence[str],
    answers: NDArray[np.int64],
    units: NDArray[np.int64],
    classes: int,
    *,
    epsilon: float,
    delta: float,
    declared_units: int,
    idf: Floats | None = None,
    settings: LinearSettings | None = None,
) -> tuple[Predictor, LinearPrivacy]:
    """Softmax regression on hashed words by noisy full-batch gradient descent, clipped per unit.

    `units` gives each record's unit number; `declared_units` is a public constant that divides the
    gradient. `idf` [features] must come from public text: weights fitted on the private records would
    leak. A unit beyond `records_per_unit` gives its first records only.

    Raises:
        PrivacyRefused: delta is not below 1 / units. DataRejected: lengths that differ.
    """
    chosen = settings or LinearSettings()
    if not 0 < delta < 1 / declared_units:
        raise PrivacyRefused(
            f"Delta {delta:g} is too large for {declared_units} units.", "Use 1 / (10 x units)."
        )
    if not len(texts) == len(answers) == len(units) or len(texts) == 0:
        raise DataRejected("Texts, answers and units do not match.", "Give one of each per record.")
    sigma = gaussian_noise_for(epsilon, delta=delta, steps=chosen.steps)
    features = _hashed(chosen.features, idf)
    weights = _descend(features(texts), answers, units, classes, declared_units, sigma, chosen)

    def predict(asked: Sequence[str]) -> NDArray[np.int64]:
        return np.asarray((features(asked) @ weights).argmax(axis=1), dtype=np.int64)

    return predict, LinearPrivacy(
        epsilon=gaussian_epsilon(sigma, delta=delta, steps=chosen.steps),
        delta=delta,
        noise_multiplier=sigma,
        steps=chosen.steps,
        max_grad_norm=chosen.max_grad_norm,
        units=declared_units,
    )


def public_idf(texts: Sequence[str], features: int = LinearSettings.features) -> Floats:
    """Inverse document frequencies of hashed words [features] in public `texts`, smoothed."""
    present = _vectorizer(features).transform(list(texts))
    seen = np.asarray((present > 0).sum(axis=0)).ravel()
    return np.log((1 + len(texts)) / (1 + seen)) + 1.0


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Delta of the Gaussian mechanism with sensitivity / noise = `mu` (Balle and Wang 2018, theorem 8).

    phi(mu/2 - eps/mu) - exp(eps) phi(-mu/2 - eps/mu); `steps` adaptive releases have
    mu = sqrt(steps) / noise_multiplier, exactly (Dong, Roth and Su 2022, corollary 3.3).
    """
    from scipy.stats import norm

    second = math.exp(min(700.0, epsilon + float(norm.logcdf(-mu / 2 - epsilon / mu))))
    return float(norm.cdf(mu / 2 - epsilon / mu)) - second


def gaussian_epsilon(noise_multiplier: float, *, delta: float, steps: int) -> float:
    """The smallest epsilon (to 1e-6, rounded up) of `steps` full-batch releases."""
    mu = math.sqrt(steps) / noise_multiplier
    low, high = 0.0, 1.0
    while gaussian_delta(high, mu) > delta:
        low, high = high, high * 2
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(middle, mu) > delta else (low, middle)
    return high


def gaussian_noise_for(epsilon: float, *, delta: float, steps: int) -> float:
    """The smallest noise multiplier (to 1e-6 relative, rounded up) that stays within `epsilon`.

    Raises:
        PrivacyRefused: epsilon or delta are not positive.
    """
    if epsilon <= 0 or not 0 < delta < 1:
        raise PrivacyRefused("Epsilon must be positive and delta between 0 and 1.", "Try epsilon 8.")
    low, high = 1e-6, 1.0
    while gaussian_delta(epsilon, math.sqrt(steps) / high) > delta:
        low, high = high, high * 2
    while high / low > 1 + 1e-6:
        middle = math.sqrt(low * high)
        fits = gaussian_delta(epsilon, math.sqrt(steps) / middle) <= delta
        low, high = (low, middle) if fits else (middle, high)
    return high


def unit_factors(gram: Any, errors: Floats, units: NDArray[np.int64], limit: float) -> Floats:
    """For each record the weight with which it enters the sum of clipped unit gradients.

    A unit's gradient is the mean of x (outer) error over its records; its squared norm is the sum of
    (x_i . x_j)(e_i . e_j) over pairs of them, which `gram` = (first, second, x_i . x_j) holds.
    """
    first, second, products = gram
    count = int(units.max()) + 1
    sizes = np.bincount(units, minlength=count)
    pairs = products * np.einsum("ij,ij->i", errors[first], errors[second])
    squares = np.bincount(units[first], weights=pairs, minlength=count)
    norms = np.sqrt(np.maximum(squares, 0.0)) / np.maximum(sizes, 1)
    factors = np.minimum(1.0, limit * (1 - 1e-9) / np.maximum(norms, 1e-12))
    return np.asarray((factors / np.maximum(sizes, 1))[units])


def unit_pairs(inputs: Any, units: NDArray[np.int64]) -> tuple[Any, Any, Floats]:
    """All ordered pairs of records of one unit, and the inner products of their features."""
    order = np.argsort(units, kind="stable")
    blocks = np.split(order, np.flatnonzero(np.diff(units[order])) + 1)
    first = np.concatenate([np.repeat(block, len(block)) for block in blocks])
    second = np.concatenate([np.tile(block, len(block)) for block in blocks])
    products = np.asarray(inputs[first].multiply(inputs[second]).sum(axis=1)).ravel()
    return first, second, products


def _descend(
    inputs: Any,
    answers: NDArray[np.int64],
    units: NDArray[np.int64],
    classes: int,
    declared_units: int,
    sigma: float,
    settings: LinearSettings,
) -> Floats:
    _, units = np.unique(units, return_inverse=True)
    kept = _first_of_each(units, settings.records_per_unit)
    inputs, answers, units = inputs[kept], answers[kept], units[kept]
    gram = unit_pairs(inputs, units)
    target = np.eye(classes)[answers]
    weights = np.zeros((inputs.shape[1], classes))
    for _ in range(settings.steps):
        errors = _softmax(inputs @ weights) - target
        factors = unit_factors(gram, errors, units, settings.max_grad_norm)
        total = inputs.T @ (factors[:, None] * errors)
        drawn = noise.gaussian(weights.size, sigma * settings.max_grad_norm).reshape(weights.shape)
        weights -= settings.learning_rate * (total + drawn) / declared_units
    return weights


def _first_of_each(units: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    order = np.argsort(units, kind="stable")
    starts = np.flatnonzero(np.diff(units[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return np.asarray(np.sort(order[rank < most]))


def _softmax(logits: Floats) -> Floats:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _vectorizer(features: int) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(n_features=features, alternate_sign=False, binary=True, norm=None)


def _hashed(features: int, idf: Floats | None) -> Callable[[Sequence[str]], Any]:
    """Texts to sparse rows of length 1 [records, features + 1]; the last column is a constant."""
    from scipy.sparse import csr_matrix, diags, hstack
    from sklearn.preprocessing import normalize

    scale = diags(np.ones(features) if idf is None else idf)

    def rows(texts: Sequence[str]) -> Any:
        words = normalize(_vectorizer(features).transform(list(texts)) @ scale)
        constant = csr_matrix(np.full((len(texts), 1), 0.1))
        return normalize(hstack([words, constant], format="csr"))

    return rows
