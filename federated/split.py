"""How records are dealt to simulated sites: all of a unit (a patient) is at one site.

    iid         every site gets as many units as any other, at random
    label       every site sees few labels: units in the order of their label are cut into two pieces a site,
                and two of them are dealt to each (McMahan et al. 2017)
    dirichlet   each label is spread over the sites by shares from a Dirichlet distribution (Hsu et al. 2019)
    patients    sites differ in size, not in kind: shares of all units come from a Dirichlet distribution

A unit's label is the one that most of its records have. The smaller `alpha`, the less alike the sites are:
1 is mild, 0.1 leaves most sites with few labels. No site stays empty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from appliance.core.errors import ConfigWrong
from appliance.data.records import Record

Split = Literal["iid", "label", "dirichlet", "patients"]
SPLITS: tuple[Split, ...] = ("iid", "label", "dirichlet", "patients")
_PIECES = 2  # that a site gets of the units in the order of their label


def dealt(
    records: Sequence[Record], sites: int, how: Split, *, alpha: float, seed: int
) -> list[list[Record]]:
    """The records of each site; together they are all of `records`, each once.

    Raises:
        ConfigWrong: there are fewer units than sites, `alpha` is not above 0, or `how` is unknown.
    """
    if how not in SPLITS or not 0 < alpha <= 1e6:
        raise ConfigWrong(
            f"There is no split {str(how)[:40]} with alpha {alpha:g}.",
            f"Choose one of {', '.join(SPLITS)}, and an alpha above 0.",
        )
    units: dict[str, list[Record]] = {}
    for record in records:
        units.setdefault(record.unit or f"record\0{record.id}", []).append(record)
    if sites < 1 or len(units) < sites:
        raise ConfigWrong(
            f"{len(units):,} units cannot be dealt to {sites:,} sites.",
            "Take fewer --sites, or more records.",
        )
    draw = np.random.default_rng(seed)
    held = list(units.values())
    shuffled = [held[place] for place in draw.permutation(len(held))]
    parts = _filled(_DEALERS[how](shuffled, sites, alpha, draw))
    return [[record for unit in part for record in unit] for part in parts]


_Units = list[list[Record]]


def _iid(units: _Units, sites: int, alpha: float, draw: np.random.Generator) -> list[_Units]:
    return [units[place::sites] for place in range(sites)]


def _label(units: _Units, sites: int, alpha: float, draw: np.random.Generator) -> list[_Units]:
    pieces = np.array_split(np.arange(len(units)), _PIECES * sites)
    ordered = sorted(units, key=_label_of)  # stable: at random within a label
    order = draw.permutation(len(pieces))
    return [
        [ordered[place] for piece in order[_PIECES * site : _PIECES * (site + 1)] for place in pieces[piece]]
        for site in range(sites)
    ]


def _dirichlet(units: _Units, sites: int, alpha: float, draw: np.random.Generator) -> list[_Units]:
    kinds: dict[str, _Units] = {}
    for unit in units:
        kinds.setdefault(_label_of(unit), []).append(unit)
    parts: list[_Units] = [[] for _ in range(sites)]
    for _, some in sorted(kinds.items()):
        for part, more in zip(parts, _shared(some, sites, alpha, draw), strict=True):
            part += more
    return parts


def _patients(units: _Units, sites: int, alpha: float, draw: np.random.Generator) -> list[_Units]:
    return _shared(units, sites, alpha, draw)


def _shared(units: _Units, sites: int, alpha: float, draw: np.random.Generator) -> list[_Units]:
    """Consecutive pieces, as long as shares from a Dirichlet distribution say."""
    shares = draw.dirichlet(np.full(sites, alpha))
    if not np.isfinite(shares).all():  # so small an alpha that every draw was 0: one site has all
        shares = np.eye(sites)[draw.integers(sites)]
    ends = np.rint(np.cumsum(shares) * len(units)).astype(int)
    ends[-1] = len(units)
    return [units[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _filled(parts: list[_Units]) -> list[_Units]:
    """Empty sites get a unit of the site that has most."""
    for part in parts:
        if not part:
            part.append(max(parts, key=len).pop())
    return parts


def _label_of(unit: list[Record]) -> str:
    counted = Counter(record.answer for record in unit)
    return min(counted, key=lambda label: (-counted[label], label))


_DEALERS = {"iid": _iid, "label": _label, "dirichlet": _dirichlet, "patients": _patients}
