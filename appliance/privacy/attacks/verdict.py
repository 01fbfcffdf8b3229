"""What one test of an audit says: a verdict, what was found, and the most it could have found.

PASS means that this test, at this size, found nothing. It never means that there is nothing: that is
why every finding carries its ceiling. A test that cannot be run where it is asked for does not apply
and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

PASS, FAIL, OPEN, NONE = "PASS", "FAIL", "INCONCLUSIVE", "NOT APPLICABLE"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of an audit. `test` is A, B, C or D; `on` what was tested; `found` and `ceiling` are
    sentences without record text; `figures` are the numbers behind them.
    """

    test: str
    name: str
    on: str
    verdict: str
    found: str
    ceiling: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def together(verdicts: Iterable[str]) -> str:
    """FAIL if any fails; PASS if all that apply pass and at least one does; else INCONCLUSIVE."""
    told = [verdict for verdict in verdicts if verdict != NONE]
    if FAIL in told:
        return FAIL
    return PASS if told and all(verdict == PASS for verdict in told) else OPEN


def judged(low: float, high: float, limit: float) -> str:
    """FAIL when the whole interval lies above `limit`, PASS when none of it does."""
    return FAIL if low > limit else PASS if high <= limit else OPEN
