"""What the signed agreement fixes for secure rounds: members, keys, the minimum, the lattice, the weights.

Site and coordinator work it out from the same file, whose digest is part of every message; none of it is
said over the wire. A site counts in steps of a 32nd of the largest count, so that weights take 5 bits.
"""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np

from federated import description
from federated.secagg.federation import Federation, Member
from federated.secagg.lattice import Lattice
from federated.secagg.masks import Bits

_STEPS = 32
_FINE = 64  # lattice steps of a value, on average, in a change of the largest norm


def federation_of(agreement: description.Federation, digest: str, minimum: int = 0) -> Federation:
    """The members of an agreement with this digest; `minimum` is a site's own, where it wants more.

    Raises:
        ConfigWrong: they are fewer than three, or than the minimum.
    """
    members = {
        site.name: Member(sign=bytes.fromhex(site.key), x25519=bytes.fromhex(site.x25519))
        for site in agreement.active()
    }
    return Federation(id=digest, members=members, minimum=max(agreement.rounds.min_cohort, minimum))


def lattice_of(agreement: description.Federation, values: int) -> Lattice:
    """The integers that a change of `values` numbers becomes; no value within the clip bound is cut.

    24 bits a value where they are fine enough, else 32.

    Raises:
        ConfigWrong: the agreement has no site.
    """
    sites = agreement.active()
    most = max((weight_of(agreement, site.units) for site in sites), default=1)
    bits, level = _finest(values, max(1, len(sites)) * most)
    clip = agreement.rounds.clip_bound
    return Lattice(
        bits=bits, values=values, clip=clip, scale=level / clip, level=level, sites=len(sites), most=most
    )


def weight_of(agreement: description.Federation, units: int) -> int:
    """The weight of a site with so many units; those above the clamp count for no more than it."""
    step, ceiling = _step(agreement)
    return max(1, (min(units, ceiling) + step // 2) // step)


def units_of(agreement: description.Federation, weight: int) -> int:
    """The units that a weight stands for."""
    return weight * _step(agreement)[0]


def _finest(values: int, reach: int) -> tuple[Bits, int]:
    small = ((1 << 23) - 1) // reach
    if small >= _FINE * sqrt(values):
        return 24, small
    return 32, ((1 << 31) - 1) // reach


def _step(agreement: description.Federation) -> tuple[int, int]:
    """(units of one weight, the most units that count), from what sites registered and not what they say."""
    registered = [site.units for site in agreement.active()] or [1]
    ceiling = max(1, int(agreement.rounds.weight_clamp * float(np.median(registered))))
    return ceil(ceiling / _STEPS), ceiling
