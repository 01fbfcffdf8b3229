"""What a report is made of: rows (a clause and what supports it), probes, and what a probe has found.

A probe is a function of a `Look` that gives a `Found`. Its `text` is for people and holds no words of
records, prompts or answers; `figures` are the numbers behind it: text, integers, booleans, lists, dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from appliance.core.home import Home
from appliance.security.log.checkpoint import Verifier
from appliance.security.log.verify import Verdict, verify
from appliance.security.people import mode

SUPPORTS = "supports"
LACKS = "does not support"
ABSENT = "not applicable here"
PEOPLE = "organisational"
FAILED = "could not be run"
OUTCOMES = (SUPPORTS, LACKS, ABSENT, PEOPLE, FAILED)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One clause. `says` is what supports it; without `probes` it is the organisation's own to show."""

    law: str
    clause: str
    title: str
    says: str
    probes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a probe has found."""

    outcome: str
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """What probes look at. `keys`: the site's own; `place`: the site-packages, else the running Python's."""

    home: Home
    now: datetime
    keys: tuple[Verifier, ...] = ()
    place: Path | None = None

    @cached_property
    def single(self) -> bool:
        """Whether one person may do everything here."""
        return mode.mode(self.home) == mode.SINGLE

    @cached_property
    def verdict(self) -> Verdict:
        """The whole log hashed anew, once a report."""
        return verify(self.home, self.keys)


Probe = Callable[[Look], Found]


def supports(text: str, **figures: Any) -> Found:
    """What was found bears the clause out."""
    return Found(outcome=SUPPORTS, text=text, figures=figures)


def lacks(text: str, **figures: Any) -> Found:
    """What was found does not."""
    return Found(outcome=LACKS, text=text, figures=figures)


def absent(text: str) -> Found:
    """There is nothing here that the clause could be about."""
    return Found(outcome=ABSENT, text=text)


def together(outcomes: list[str]) -> str:
    """The outcome of a row from those of its probes: the worst, and without a probe the organisation's."""
    order = (LACKS, FAILED, SUPPORTS, ABSENT)
    return next((one for one in order if one in outcomes), PEOPLE)


def version() -> str:
    """The version of this product."""
    from importlib.metadata import version as of

    return of("cloister")


def count(number: int, noun: str) -> str:
    """1 model, 2 models, 1,200 models."""
    plural = noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeiou" else noun + "s"
    return f"{number:,} {noun if number == 1 else plural}"


def some(names: list[str], most: int = 5) -> str:
    """The first of several names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
