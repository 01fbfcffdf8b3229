"""Mutants: none is taken, none does more than raise its reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import bundle_mutants as m
import pytest


@pytest.mark.parametrize("resigned", [False, True])
def test_no_mutant_is_taken(tmp_path: Path, resigned: bool) -> None:
    _check(m.run(tmp_path, 2000, 1, resigned=resigned), 2000, resigned)


@pytest.mark.soak
@pytest.mark.parametrize("resigned", [False, True])
def test_no_mutant_of_many_is_taken(tmp_path: Path, resigned: bool) -> None:
    _check(m.run(tmp_path, 100_000, 2, resigned=resigned), 100_000, resigned)


def _check(tally: Counter[str], count: int, resigned: bool) -> None:
    bad = {key: value for key, value in tally.items() if key.startswith(("accepted", "uncaught"))}
    assert bad == {}
    assert sum(tally.values()) > 0.98 * count
    reasons = {"altered", "trailing", "truncated"} | (
        {"malformed", "unsafe-name", "forwarded"} if resigned else {"no-bundle", "damaged-header"}
    )
    assert reasons <= set(tally), "the mutants reach these rules"
