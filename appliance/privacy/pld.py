"""Privacy loss distributions of sampled Gaussian steps, and their composition by FFT.

One step adds Gaussian noise (standard deviation sigma, in units of the clip bound) to a sum that a
unit enters j times over with probability w_j. Removing the unit compares P = sum_j w_j N(j, sigma^2)
with Q = N(0, sigma^2), adding it compares Q with P; each is a dominating pair and composes (Zhu,
Dong and Wang 2022). The loss log dP/dQ rises with the outcome, so that a cell of losses is a cell of
outcomes, whose masses are differences of normal distribution functions.

The mass of a cell goes to its two ends so that its P and its Q mass are both kept ("connect the
dots", Doroshenko et al. 2022): the discrete pair dominates the true one, and no pair on the same
grid is closer. What is cut off counts as an infinite loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import gammaln, logsumexp, ndtr, ndtri, xlog1py, xlogy

Floats = NDArray[np.float64]

_TAIL = 1e-18  # mass that may be cut from one step, and from a composition
_FINEST, _COARSEST = 1e-5, 5e-3  # grid of losses
_SHARE = 0.05  # of the standard deviation of one step's loss
_CELLS = 2**21  # of one step, at most; a finer grid than that allows is not used
_HUGE = 600.0  # losses above count as infinite: nothing with them is private, and exp overflows at 709


@dataclass(frozen=True)
class Pair:
    """One step: P against Q, or Q against P where `adding`."""

    sigma: float
    weights: tuple[float, ...]
    adding: bool


@dataclass(frozen=True)
class Losses:
    """Masses of the losses first, first + 1, ... in units of the grid, and of an infinite loss."""

    first: int
    mass: Floats
    infinite: float


def entries(rate: float, draws: int = 1) -> tuple[float, ...]:
    """w_j when a unit has `draws` records and each enters with probability `rate`: binomial."""
    times = np.arange(draws + 1)
    chance = gammaln(draws + 1) - gammaln(times + 1) - gammaln(draws - times + 1)
    return tuple(np.exp(chance + xlogy(times, rate) + xlog1py(draws - times, -rate)).tolist())


def epsilon(parts: Sequence[tuple[Pair, int]], delta: float) -> float:
    """The smallest epsilon with which all parts, each taken its number of times, hold for `delta`.

    Infinite when losses too large to be told apart are more likely than `delta`.
    """
    grid = _grid(parts)
    losses = [(discretise(pair, grid), count) for pair, count in parts]
    if sum(min(1.0, part.infinite) * count for part, count in losses) > delta:
        return inf
    return _solve(_compose(losses, grid), grid, delta)


def discretise(pair: Pair, grid: float) -> Losses:
    """The losses of one step, on a grid of step `grid`."""
    low, high = _reach(pair)
    ends = _loss(pair, np.array([low, high])).clip(-_HUGE, _HUGE)
    first, last = int(np.floor(ends[0] / grid)), int(np.ceil(ends[1] / grid))
    low, high = _outcomes(pair, np.array([first, last]) * np.float64(grid), low, high)
    edges: Floats = np.arange(first, last + 1) * np.float64(grid)
    outcomes = np.clip(_outcomes(pair, edges, low, high), low, high)
    unit = sum(w * _cells((outcomes - j) / pair.sigma) for j, w in enumerate(pair.weights))
    none = _cells(outcomes / pair.sigma)
    values = edges[:-1]
    # Keep both masses of the cell [v, v + grid]: u + w = P mass, u e^-v + w e^-(v + grid) = Q mass.
    upper = ((unit - none * np.exp(values)) / -np.expm1(-grid)).clip(0, unit)
    lower = unit - upper
    if pair.adding:
        mass = _joined(lower * np.exp(-values), upper * np.exp(-values - grid))[::-1]
        beyond, first = float(ndtr(low / pair.sigma)), -last
    else:
        mass = _joined(lower, upper)
        beyond = float(sum(w * ndtr((j - high) / pair.sigma) for j, w in enumerate(pair.weights)))
    mass[0] += max(0.0, 1 - beyond - mass.sum())  # losses below the first are rounded up to it
    return Losses(first=first, mass=mass, infinite=beyond)


def _compose(parts: Sequence[tuple[Losses, int]], grid: float) -> Losses:
    """The sum of independent losses.

    Chernoff bounds its range. What lies above counts as infinite; what lies below wraps around to
    the top, which errs on the safe side.
    """
    low, high = -_bound(parts, grid, -1), _bound(parts, grid, 1)
    size = 1 << int(np.ceil(np.log2(high - low + 2)))
    spectrum = np.ones(size // 2 + 1, dtype=np.complex128)
    finite = 0.0
    for part, count in parts:
        folded = np.bincount(np.arange(len(part.mass)) % size, weights=part.mass, minlength=size)
        spectrum *= np.fft.rfft(folded) ** count
        finite += count * float(np.log1p(-part.infinite))
    start = sum(part.first * count for part, count in parts)
    mass = np.roll(np.fft.irfft(spectrum, size), (start - low) % size).clip(min=0)
    return Losses(first=low, mass=mass, infinite=float(-np.expm1(finite)) + _TAIL)


def _solve(losses: Losses, grid: float, delta: float) -> float:
    """Epsilon from delta(e) = infinite + sum over losses v > e of p_v (1 - exp(e - v))."""
    zero = max(0, -losses.first)  # epsilon is never negative
    mass = losses.mass[zero:]
    if not len(mass):
        return 0.0
    above = losses.infinite + np.cumsum(mass[::-1])[::-1]  # P, at and above each value
    decay = np.exp(-grid)
    beyond = lfilter([0.0, decay], [1.0, -decay], mass[::-1])[::-1]  # Q strictly above, times e^value
    enough = np.flatnonzero(above - mass - beyond <= delta)
    if not len(enough):
        return inf
    place = int(enough[0])
    value = (losses.first + zero + place) * grid
    if place == 0 and losses.first + zero == 0:
        return 0.0
    # Between the value before and this one, delta is linear in e^epsilon.
    return max(0.0, value + float(np.log((above[place] - delta) / (mass[place] + beyond[place]))))


def _bound(parts: Sequence[tuple[Losses, int]], grid: float, sign: int) -> int:
    """A number of grid steps that sign x the sum exceeds with probability at most _TAIL."""
    spread, most = 0.0, 0
    for part, count in parts:
        values = (part.first + np.arange(len(part.mass))) * grid
        mean = float(part.mass @ values)
        spread += count * float(part.mass @ (values - mean) ** 2)
        most += count * (part.first + len(part.mass) - 1 if sign > 0 else -part.first)
    tilts = 10.0 ** np.arange(-3, 1.2, 0.2) / max(grid, spread**0.5)
    bounds = [
        (sum(count * _log_moment(part, grid, sign * tilt) for part, count in parts) - np.log(_TAIL)) / tilt
        for tilt in tilts
    ]
    return min(most, int(np.ceil(min(bounds) / grid)))


def _log_moment(part: Losses, grid: float, tilt: float) -> float:
    with np.errstate(divide="ignore"):
        return float(logsumexp(np.log(part.mass) + tilt * grid * (part.first + np.arange(len(part.mass)))))


def _grid(parts: Sequence[tuple[Pair, int]]) -> float:
    """A share of the spread of the most even step's loss, finer than which nothing changes.

    Coarser where the range of a step or of the sum would take too many cells.
    """
    wanted, span, total = _COARSEST, 0.0, 0.0
    for pair, count in parts:
        low, high = _reach(pair)
        outcomes = np.linspace(low, high, 20_001)
        loss = _loss(pair, outcomes).clip(-_HUGE, _HUGE)
        density = np.exp(-0.5 * (outcomes / pair.sigma) ** 2 + (0 if pair.adding else loss))
        density /= density.sum()
        spread = float(np.sqrt(density @ (loss - density @ loss) ** 2))
        wanted = min(wanted, max(_FINEST, _SHARE * spread))
        span = max(span, float(loss[-1] - loss[0]) * (8 if len(pair.weights) > 2 else 1))
        total += count * spread**2
    return max(wanted, span / _CELLS, (total + 20 * total**0.5) / (2 * _CELLS))


def _reach(pair: Pair) -> tuple[float, float]:
    """Outcomes outside are less likely than _TAIL."""
    reach = -float(ndtri(_TAIL)) * pair.sigma
    return -reach, len(pair.weights) - 1 + reach


def _loss(pair: Pair, outcomes: Floats) -> Floats:
    """log dP/dQ at each outcome."""
    found: Floats = logsumexp(_terms(pair, outcomes), axis=0)
    return found


def _terms(pair: Pair, outcomes: Floats) -> Floats:
    """log of w_j N(x; j) / N(x; 0), [j, x]; the ratio of densities is their sum over j."""
    times = np.arange(len(pair.weights))[:, None]
    with np.errstate(divide="ignore"):
        chance = np.log(np.array(pair.weights))[:, None]
    found: Floats = chance + (2 * outcomes * times - times**2) / (2 * pair.sigma**2)
    return found


def _outcomes(pair: Pair, losses: Floats, low: float, high: float) -> Floats:
    """The outcome of each loss: the inverse of `_loss`, in [low, high]."""
    if len(pair.weights) == 2:
        none, once = pair.weights
        with np.errstate(divide="ignore", invalid="ignore"):
            rest = losses + np.log1p(-none * np.exp(-losses))
        return np.nan_to_num(pair.sigma**2 * (rest - np.log(once)) + 0.5, nan=low, neginf=low)
    known = np.linspace(low, high, 100_001)
    found = np.interp(losses, _loss(pair, known), known)
    times = np.arange(len(pair.weights))[:, None]
    for _ in range(3):  # Newton: the loss is smooth and convex, its slope the mean of j given x
        terms = _terms(pair, found)
        value = logsumexp(terms, axis=0)
        slope = (np.exp(terms - value) * times).sum(axis=0) / pair.sigma**2
        found = np.clip(found - (value - losses) / np.maximum(slope, 1e-12), low, high)
    return found


def _cells(ends: Floats) -> Floats:
    """Standard normal mass between neighbours, from the nearer tail so that small masses are exact."""
    left, right = ends[:-1], ends[1:]
    return np.where(left > 0, ndtr(-left) - ndtr(-right), ndtr(right) - ndtr(left))


def _joined(lower: Floats, upper: Floats) -> Floats:
    """Masses at the grid points from those at the lower and upper end of each cell."""
    mass = np.zeros(len(lower) + 1)
    mass[:-1] += lower
    mass[1:] += upper
    return mass
