"""Seeded federations, plain, robust and secure: whatever goes wrong in them, no invariant breaks.

A round commits once, with a quorum, and is the average of what was admitted and of nothing else; each site
of its cohort is averaged or refused by a code that has words; each lie is refused with its own code; nothing
that was taken is lost when the coordinator is started again, and the same updates in another order give the
same bytes; a site answers a round once, is charged before it trains and never more than was agreed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from many_secure import Secure
from many_worlds import Plain

from federated import course, rounds
from federated.admit import Admitted
from federated.update import opened_update

SECURE, REAL = 4, 100  # one in so many has secure rounds, or the product's ledgers


def broken(folder: Path, seeds: Iterable[int]) -> tuple[int, Counter[str], list[str]]:
    """(rounds committed, how often each kind of trouble came up, what broke)."""
    done, seen, wrong = 0, Counter[str](), list[str]()
    for seed in seeds:
        place = folder / str(seed)
        try:
            if seed % SECURE == 3:
                secure = Secure(place, seed)
                secure.rounds()
                done += secure.check()
                seen += secure.seen
            else:
                plain = Plain(place, seed, real=seed % REAL == 0)
                plain.run()
                done += plain.check()
                seen += plain.seen
        except Exception as problem:
            wrong.append(f"seed {seed}: {type(problem).__name__}: {problem}")
        shutil.rmtree(place, ignore_errors=True)
    return done, seen, wrong


def test_a_hundred_federations(tmp_path: Path) -> None:
    done, seen, wrong = broken(tmp_path, range(100))
    assert wrong == []
    # Every kind of trouble came up, or this would show nothing.
    assert done > 150
    assert set(seen) >= {
        *("straggler", "restart", "done again", "dropped", "given up", "budget"),
        *("forged", "malformed", "stranger", "federation", "round", "parent", "packing", "second"),
        *("length", "body", "units", "values", "norm"),
        *("killed", "restarted", "gone", "spoilt", "refused masks"),
    }


def _forgets_an_update(receive: Any) -> Any:
    def broken(held: Any, state: Any, content: bytes) -> Any:
        after, found = receive(held, state, content)
        lost = after.admitted != state.admitted and len(state.admitted) == 1
        return (state, found) if lost else (after, found)

    return broken


def _closes_with_too_few(close: Any) -> Any:
    return lambda held, state: close(held, replace(state, admitted=dict(list(state.admitted.items())[1:])))


def _lets_large_ones_in(admit: Any) -> Any:
    def broken(content: bytes, *rest: Any) -> Any:
        found = admit(content, *rest)
        if isinstance(found, Admitted) or found.code != "norm":
            return found
        return Admitted(statement=opened_update(content)[0], norm=1.0)

    return broken


_FAULTS: list[tuple[Any, str, Any]] = [
    (course, "receive", _forgets_an_update),
    (course, "close", _closes_with_too_few),
    (course, "admit", _lets_large_ones_in),
    (course, "average", lambda right: lambda *parts, **rest: right(*parts, **rest) * np.float32(1.01)),
    (rounds, "with_refusal", lambda right: lambda state, site, code: state),
]


@pytest.mark.parametrize(("module", "name", "fault"), _FAULTS, ids=[name for _, name, _ in _FAULTS])
def test_a_broken_coordinator_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, fault: Any
) -> None:
    monkeypatch.setattr(module, name, fault(getattr(module, name)))
    _, _, wrong = broken(tmp_path, [seed for seed in range(24) if seed % SECURE != 3])
    assert wrong


@pytest.mark.soak
def test_ten_thousand_federations(tmp_path: Path) -> None:
    several = max(1, int(os.environ.get("CLOISTER_SOAK_PROCESSES", os.cpu_count() or 1)))
    parts = [range(first, min(first + 50, 10_000)) for first in range(0, 10_000, 50)]
    whole, committed, seen, wrong = 0, 0, Counter[str](), list[str]()
    with ProcessPoolExecutor(several, mp_context=get_context("spawn")) as pool:
        for part, found in zip(parts, pool.map(broken, [tmp_path] * len(parts), parts), strict=True):
            whole, committed = whole + len(part), committed + found[0]
            seen += found[1]
            wrong += found[2]
    told = ", ".join(f"{count:,} {what}" for what, count in sorted(seen.items()))
    said = f"{whole:,} federations, {committed:,} rounds, {len(wrong)} broke an invariant ({told})"
    print(f"\n{said}", file=sys.__stdout__, flush=True)
    assert wrong == []
