"""Noise that the sites add together: discrete Gaussians on the lattice of the sum.

Each site draws its own from a CSPRNG (appliance/privacy/noise.py) and adds it before masking, so that nobody
ever sees a sum without it. What is drawn is enough for the fewest honest sites that can be in a sum; when
more survive, there is more noise than asked for, never less. Sums of discrete Gaussians are almost discrete
Gaussians; privacy.py counts the difference (Kairouz, Liu and Steinke 2021).
"""

from __future__ import annotations

from math import isfinite, sqrt

import numpy as np
from numpy.typing import NDArray

from appliance.core.errors import PrivacyRefused
from appliance.privacy.noise import Keystream, discrete_gaussian
from federated.secagg.lattice import Lattice

LEAST_SIGMA = 0.5  # below, the bound of privacy.tau is not proven


def site_sigma(sigma: float, honest: int) -> float:
    """What each site must add so that any `honest` of them together have at least `sigma`.

    `honest` is privacy.honest_sites: the threshold less the sites that are taken to collude, for those know
    their own noise.

    Raises:
        PrivacyRefused: nobody honest is left, or a site's noise would be too small for the lattice.
    """
    if honest < 1 or not isfinite(sigma) or sigma <= 0:
        raise PrivacyRefused("No noise is added by nobody.", "Assume fewer colluding sites.")
    if (found := sigma / sqrt(honest)) < LEAST_SIGMA:
        raise PrivacyRefused(
            f"A site's noise of {found:.3g} lattice steps is too small to account for.",
            f"Make the scale at least {LEAST_SIGMA / found:.3g} times as large.",
        )
    return found


def draw(lattice: Lattice, stream: Keystream | None = None) -> NDArray[np.int64]:
    """A site's noise for one vector: `lattice.values` integers of standard deviation `lattice.sigma`."""
    if lattice.sigma == 0:
        return np.zeros(lattice.values, dtype=np.int64)
    return discrete_gaussian(lattice.values, lattice.sigma, stream or Keystream())
