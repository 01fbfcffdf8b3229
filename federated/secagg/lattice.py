"""From a change to integers that are summed modulo 2**bits, and back.

A site clips its change to the norm `clip` and every value to `level / scale`, multiplies by `scale` and
rounds; what comes out has a norm of at most `clip * scale` for certain (rounding that would raise it above
is done again on a shorter vector), which is the sensitivity that privacy.py counts with. Integers are then
multiplied by the site's public weight. `reach` bounds what a cohort's sum can be, so that it cannot wrap:
values that would are clipped here, and counted, and never silently by the modulus.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from math import ceil, isfinite, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from appliance.core.errors import ConfigWrong, DataRejected
from appliance.privacy.noise import Keystream
from federated.secagg.masks import Bits, Words, centred

Rounding = Literal["nearest", "stochastic"]
TAIL = 14  # standard deviations of noise that must fit: a value is beyond with probability below 2**-140
_BLOCK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """How `values` numbers become integers, the same at every site of a federation.

    `scale` integers are 1.0; `level` is the largest integer of a value before weighting; `most` the largest
    weight; `sites` the largest cohort; `sigma` the standard deviation of the noise that each site adds, in
    integers (noise.py), 0 for none.

    Raises:
        ConfigWrong: a sum could wrap, a number is out of range, or rounding on so coarse a lattice
            would be most of the norm.
    """

    bits: Bits
    values: int
    clip: float
    scale: float
    level: int
    sites: int
    most: int = 1
    sigma: float = 0.0

    def __post_init__(self) -> None:
        whole = min(self.values, self.level, self.sites, self.most)
        if self.bits not in (16, 24, 32) or whole < 1:
            raise ConfigWrong(
                "A lattice has 16, 24 or 32 bits, and at least one value, level, site and weight.",
                "Correct the federation's settings.",
            )
        numbers = (self.clip, self.scale, self.sigma)
        if not all(isfinite(one) for one in numbers) or min(self.clip, self.scale) <= 0 or self.sigma < 0:
            raise ConfigWrong("Clip and scale are above 0, sigma is not below.", "Correct the settings.")
        if self.values > 3 * self.norm**2 or self.norm >= 1 << 31:
            raise ConfigWrong(
                f"A scale of {self.scale:g} is too coarse or too fine for {self.values:,} values of norm"
                f" {self.clip:g}.",
                f"Take a scale of {ceil(sqrt(self.values) / self.clip)} or a little more.",
            )
        if reach(self) > room(self.bits):
            raise ConfigWrong(
                f"{self.sites} sites of weight {self.most} and level {self.level} reach {reach(self):,};"
                f" {self.bits} bits hold {room(self.bits):,}.",
                f"Take a level of {most_level(self)}, more bits, or a smaller largest weight.",
            )

    @property
    def norm(self) -> float:
        """The largest norm of a site's integers before weighting."""
        return self.clip * self.scale

    @property
    def cap(self) -> int:
        """The largest integer that a site may send, weighted and with noise."""
        return self.most * self.level + ceil(TAIL * self.sigma)


def room(bits: Bits) -> int:
    """The largest size of a sum that `bits` hold."""
    return (1 << bits - 1) - 1


def reach(lattice: Lattice) -> int:
    """The largest size of a cohort's sum: cohort x weight x level, and the noise of all."""
    return lattice.sites * lattice.most * lattice.level + ceil(TAIL * lattice.sigma * sqrt(lattice.sites))


def most_level(lattice: Lattice) -> int:
    """The largest level with which the sum fits; 0 where none does."""
    noise = ceil(TAIL * lattice.sigma * sqrt(lattice.sites))
    return max(0, (room(lattice.bits) - noise) // (lattice.sites * lattice.most))


def weight_of(records: int, lattice: Lattice) -> int:
    """The public weight of a site with so many records: from 1 to `most`."""
    return min(max(1, records), lattice.most)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A site's integers before weighting, the norm of its change, and how many values were cut to level."""

    integers: NDArray[np.int64]
    norm: float
    cut: int


def encode(
    change: NDArray[np.float32],
    lattice: Lattice,
    *,
    rounding: Rounding = "stochastic",
    stream: Keystream | None = None,
) -> Encoded:
    """The integers of a change, of a norm of at most `lattice.norm` and none above `lattice.level`.

    Stochastic rounding goes up or down by chance (from `stream`, by default the operating system's), so that
    it is right on average; only a vector that would be too long is made a little shorter first.

    Raises:
        DataRejected: the change has another length, or a value that is not finite.
    """
    if change.shape != (lattice.values,) or not np.isfinite(change).all():
        raise DataRejected("The change is not finite, or of another length.", "Train this round again.")
    size = float(np.sqrt(np.sum(np.square(change, dtype=np.float64))))
    random, longest = stream or Keystream(), lattice.norm**2
    added = lattice.values / 4 if rounding == "stochastic" else 0.0  # to the square of the norm, on average
    target = min(size * lattice.scale, sqrt(max(longest - added, longest / 4)))
    for attempt in count():
        integers, cut = _rounded(change, target / size if size else 0.0, lattice.level, rounding, random)
        found = int(np.sum(np.square(integers)))
        if found <= longest:
            break
        target *= max(0.0, 1 - max(1 - lattice.norm / sqrt(found), 1e-6 * 2.0**attempt))
    return Encoded(integers=integers, norm=size, cut=cut)


def decode(total: Words, lattice: Lattice, *, weight: int) -> NDArray[np.float64]:
    """The weighted mean of the changes: the sum over `weight`, the sum of the weights."""
    return centred(total, lattice.bits) / (lattice.scale * weight)


def _rounded(
    change: NDArray[np.float32], factor: float, level: int, rounding: Rounding, stream: Keystream
) -> tuple[NDArray[np.int64], int]:
    integers, cut = np.empty(change.size, dtype=np.int64), 0
    for start in range(0, change.size, _BLOCK):
        scaled = change[start : start + _BLOCK].astype(np.float64) * factor
        if rounding == "nearest":
            np.rint(scaled, out=scaled)
        else:
            scaled += stream.uniform(scaled.size)
            np.floor(scaled, out=scaled)
        cut += int(np.count_nonzero(np.abs(scaled) > level))
        integers[start : start + _BLOCK] = np.clip(scaled, -level, level)
    return integers, cut
