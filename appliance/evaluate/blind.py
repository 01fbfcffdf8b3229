"""A person compares two models without knowing which is which: pairs of answers, choices, an exact test.

A comparison keeps which records were drawn and what was chosen, not a word of them. Which model stands on
which side of a pair follows from a seed that is kept with it: faces tell it when all pairs are judged.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import Counter
from dataclasses import asdict, dataclass, replace
from math import comb
from pathlib import Path
from typing import Any

from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.events import now
from appliance.core.files import write_json
from appliance.core.home import Home
from appliance.core.reading import read_bytes

A, B, TIE, SAME = "a", "b", "tie", "same"
_SUFFIX = "-blind.json"
_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`records` are places in the split; `choices` what was chosen for the first of them, as it was shown:
    a, b, tie, or same where both had answered the same and nobody was asked."""

    id: str
    created: str
    who: str
    dataset: str
    split: str
    models: tuple[str, str]
    seed: int
    records: tuple[int, ...]
    choices: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Whether every pair is judged."""
        return len(self.choices) == len(self.records)


def sides(one: Comparison, pair: int) -> tuple[str, str]:
    """The models behind A and B of a pair, counted from 0."""
    drawn = hashlib.sha256(f"{one.seed} {pair}".encode()).digest()[0] & 1
    return (one.models[1], one.models[0]) if drawn else one.models


def preferred(one: Comparison) -> Counter[str]:
    """How often each model was chosen, and how often there was a `tie`, unasked ones included."""
    found = Counter(dict.fromkeys(one.models, 0) | {TIE: 0})
    for pair, choice in enumerate(one.choices):
        chosen = {A: sides(one, pair)[0], B: sides(one, pair)[1]}
        found[chosen.get(choice, TIE)] += 1
    return found


def sign_test(wins: int, of: int) -> float:
    """Two-sided p of `wins` of `of` pairs without ties when both are as likely: exact, binomial, 1/2."""
    tail = sum(comb(of, count) for count in range(max(wins, of - wins), of + 1))
    return min(1.0, float(2 * tail / 2**of))


def interval(wins: int, of: int) -> tuple[float, float]:
    """Clopper and Pearson's exact 95 % interval of a share (Biometrika 26, 1934)."""
    if not of:
        return 0.0, 1.0
    tail = (1 - _LEVEL) / 2
    low = 0.0 if wins == 0 else _share(lambda p: 1 - _at_most(wins - 1, of, p) < tail)
    high = 1.0 if wins == of else _share(lambda p: _at_most(wins, of, p) > tail)
    return low, high


def _at_most(wins: int, of: int, p: float) -> float:
    return sum(comb(of, count) * p**count * (1 - p) ** (of - count) for count in range(wins + 1))


def _share(below: Any) -> float:
    """Where `below` stops being true, which it is from 0 on, by halving."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2


def result(one: Comparison) -> dict[str, Any]:
    """Counts, the share of the first model among those with a choice, its interval, and p."""
    counts = preferred(one)
    first, second = (counts[model] for model in one.models)
    low, high = interval(first, first + second)
    return {
        "counts": dict(counts),
        "share": first / (first + second) if first + second else None,
        "low": low,
        "high": high,
        "p": sign_test(first, first + second),
    }


# --- kept


def begun(
    home: Home, *, who: str, dataset: str, split: str, models: tuple[str, str], rows: int, pairs: int
) -> Comparison:
    """A new comparison of `pairs` of the split's `rows` records, drawn by chance; it is kept at once.

    Raises:
        ConfigWrong: one model twice, or no records.
    """
    if models[0] == models[1]:
        raise ConfigWrong("A model is not compared with itself.", "Choose another one.")
    if not rows:
        raise ConfigWrong(f"{dataset} has no records in its {split} split.", "Choose another split.")
    drawn = secrets.SystemRandom().sample(range(rows), min(pairs, rows))
    made = Comparison(
        id=f"{max((int(one.id) for one in kept(home)), default=0) + 1:04d}",
        created=now(),
        who=who,
        dataset=dataset,
        split=split,
        models=models,
        seed=secrets.randbits(64),
        records=tuple(drawn),
    )
    keep(home, made)
    return made


def chosen(home: Home, one: Comparison, choice: str) -> Comparison:
    """With the next pair judged; kept.

    Raises:
        ConfigWrong: another face has judged since `one` was read.
    """
    if get(home, one.id).choices != one.choices:
        raise ConfigWrong("It was judged elsewhere meanwhile.", "Press esc, and open it again.")
    made = replace(one, choices=(*one.choices, choice))
    keep(home, made)
    return made


def keep(home: Home, one: Comparison) -> None:
    """Write it; a kill leaves the one before. Raises NoRoom."""
    write_json(home.reports / f"{one.id}{_SUFFIX}", asdict(one))


def kept(home: Home) -> list[Comparison]:
    """All comparisons of a home, newest first."""
    return sorted((_read(path) for path in home.reports.glob(f"*{_SUFFIX}")), key=lambda one: one.id)[::-1]


def get(home: Home, number: str) -> Comparison:
    """One of them.

    Raises:
        NotFound: there is none.
    """
    found = next((one for one in kept(home) if one.id == number.zfill(4)), None)
    if found is None:
        raise NotFound(f"There is no blind comparison {number}.", "See: cloister report blind")
    return found


def _read(path: Path) -> Comparison:
    content: dict[str, Any] = json.loads(read_bytes(path))
    for key in ("models", "records", "choices"):
        content[key] = tuple(content[key])
    return Comparison(**content)
