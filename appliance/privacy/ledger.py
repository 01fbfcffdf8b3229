"""The privacy budget of each dataset, and what was charged to it.

The ledger stores histories (noise_multiplier, sample_rate, draws, steps), never epsilons: epsilon follows
from the whole history by the accountant. A charge is durable before the steps it pays for are
taken, so a crash can only over-count. The audit log is told of every charge, and of every limit: a budget or
ledger that is not as it tells is spent from no more (logged.py). The budget
belongs to the dataset's name: all its versions, runs and searches draw on it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import floor, inf, log10
from typing import Any

from appliance.core.db import reading, transaction
from appliance.core.errors import BudgetSpent, PrivacyRefused
from appliance.core.events import now
from appliance.core.home import Home
from appliance.privacy import logged
from appliance.privacy.accountant import Steps, epsilon, merge
from appliance.security import audit
from appliance.security.people import guard

EPSILON_LIMIT = 8.0
FEWEST_UNITS = 100  # to train on under differential privacy


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The limit of one dataset and the history charged so far. `delta` is fixed at the first charge."""

    dataset: str
    unit: str
    epsilon_limit: float
    delta: float
    history: tuple[Steps, ...] = ()

    def spent(self) -> float:
        """Epsilon of the whole history at `delta`."""
        return epsilon(self.history, self.delta)


def delta_for(units: int) -> float:
    """1 / (10 x units), rounded down to two digits: a tenth of the share one unit has of the data."""
    exact = 0.1 / units
    scale = 10.0 ** (floor(log10(exact)) - 1)
    return floor(exact / scale) * scale


def open_budget(home: Home, dataset: str, *, unit: str, units: int, delta: float | None, who: str) -> Budget:
    """The dataset's budget, made with the default limit if it has none.

    Raises:
        PrivacyRefused: delta is not below 1 / units, or differs from the one the budget has; or the budget is
            not the one that the audit log tells of.
    """
    chosen = delta if delta is not None else delta_for(units)
    if not 0 < chosen < 1 / units:
        raise PrivacyRefused(
            f"Delta {chosen:g} is not below 1/{units}: one {unit} could be published whole.",
            f"Use --delta {delta_for(units):.2g}.",
        )
    with transaction(home) as link:
        logged.check_agreed(home, dataset, link=link)
        old = _budget(link, dataset)
        if old is None:
            link.execute(
                "INSERT INTO budgets (dataset, unit, epsilon_limit, delta) VALUES (?, ?, ?, ?)",
                (dataset, unit, EPSILON_LIMIT, chosen),
            )
            audit.record(
                link,
                who=who,
                what=logged.OPENED,
                target=dataset,
                unit=unit,
                epsilon_limit=str(EPSILON_LIMIT),
                delta=logged.number(chosen),
            )
            return Budget(dataset=dataset, unit=unit, epsilon_limit=EPSILON_LIMIT, delta=chosen)
    check_agreed(old, unit, delta)
    if old.delta >= 1 / units:
        raise PrivacyRefused(
            f"The budget's delta {old.delta:g} is not below 1/{units}.",
            "Import the larger data under a name of its own.",
        )
    return old


def check_agreed(old: Budget, unit: str, delta: float | None) -> None:
    """Check that a run asks for the unit and, where it names one, the delta that the budget has.

    Raises:
        PrivacyRefused: it does not.
    """
    if old.unit != unit or (delta is not None and abs(delta / old.delta - 1) > 1e-9):
        raise PrivacyRefused(
            f"The budget of {old.dataset} protects one {old.unit} at delta {old.delta:g}.",
            "Leave out --delta, or import the data under a name of its own.",
        )


def set_limit(home: Home, dataset: str, epsilon_limit: float, *, who: str) -> None:
    """Change what a dataset may spend in all; the budget must be open. Nothing spent is forgiven.

    Raises:
        PrivacyRefused: not a positive, finite number. NotAllowed: `who` may not, or two must agree.
    """
    check_limit(epsilon_limit)
    with transaction(home) as link:
        old = logged.agreed(home, dataset, link=link).epsilon_limit or 0.0
        content = limit_content(old, epsilon_limit)
        guard.spend(link, home, who, limit_action(old, epsilon_limit), dataset, content=content)
        link.execute("UPDATE budgets SET epsilon_limit = ? WHERE dataset = ?", (epsilon_limit, dataset))
        text = logged.number(epsilon_limit)
        audit.record(link, who=who, what=logged.LIMITED, target=dataset, epsilon_limit=text)


def check_limit(epsilon_limit: float) -> None:
    """Check that a number is an epsilon. Raises PrivacyRefused."""
    if not 0 < epsilon_limit < inf:
        raise PrivacyRefused(f"{epsilon_limit:g} is no epsilon.", "Give a number above 0, such as 8.")


def limit_action(old: float, new: float) -> str:
    """What a person's rights call this change: to raise a limit needs two people."""
    return "budget.raise" if new > old else "budget.lower"


def limit_content(old: float, new: float) -> dict[str, str]:
    """What two people are shown who agree to a limit."""
    return {"epsilon_limit": repr(float(new)), "instead of": repr(float(old))}


def budget(home: Home, dataset: str) -> Budget | None:
    """The dataset's budget, or None before its first private run."""
    with reading(home) as link:
        return _budget(link, dataset)


def budgets(home: Home) -> list[Budget]:
    """All budgets, by dataset name."""
    with reading(home) as link:
        names = [row[0] for row in link.execute("SELECT dataset FROM budgets ORDER BY dataset")]
        return [found for name in names if (found := _budget(link, name)) is not None]


def events(home: Home, dataset: str) -> list[dict[str, Any]]:
    """What each job was charged, oldest first: settings, total steps, first and last time."""
    with reading(home) as link:
        rows = link.execute(
            "SELECT job, noise_multiplier, sample_rate, draws, SUM(steps) AS steps, MIN(created) AS first,"
            " MAX(created) AS last FROM ledger WHERE dataset = ?"
            " GROUP BY job, noise_multiplier, sample_rate, draws ORDER BY MIN(seq)",
            (dataset,),
        ).fetchall()
    return [dict(row) for row in rows]


def charged(home: Home, dataset: str, job: str) -> list[Steps]:
    """What `job` was charged on `dataset`, as it was charged."""
    names = ("noise_multiplier", "sample_rate", "draws", "steps")
    return [
        Steps(**{name: event[name] for name in names})
        for event in events(home, dataset)
        if event["job"] == job
    ]


def keep_plan(home: Home, job: str, plan: dict[str, Any]) -> None:
    """Keep the plan of `job` with what it will be charged: a resumed run is held to it."""
    with transaction(home) as link:
        link.execute("INSERT INTO plans (job, plan) VALUES (?, ?)", (job, json.dumps(plan)))


def kept_plan(home: Home, job: str) -> dict[str, Any] | None:
    """The plan of `job`, or None before it has one."""
    with reading(home) as link:
        row = link.execute("SELECT plan FROM plans WHERE job = ?", (job,)).fetchone()
    return json.loads(row["plan"]) if row else None


class Purse:
    """One run's way to the ledger: `charge` before each block of steps.

    What the budget still allows is worked out once and again whenever another run has charged, so
    that a charge costs one database commit. It is worked out without holding the database.
    """

    def __init__(self, home: Home, dataset: str, *, job: str, run: Steps, limit: float) -> None:
        self._home, self._dataset, self._job, self._run, self._limit = home, dataset, job, run, limit
        self._seen: tuple[int, float] | None = None
        self._limits = set[float]()  # of the dataset, held against the log
        self._left, self._taken = 0, -1

    def charge(self, steps: int, **facts: Any) -> None:
        """Write `steps` into the ledger, durably, or change nothing.

        Raises:
            BudgetSpent: the dataset's history with these steps would exceed the limit.
            PrivacyRefused: the budget or its ledger is not as the audit log tells.
            ValueError: fewer than one step.
        """
        if steps < 1:
            raise ValueError(f"{steps} steps cannot be charged")
        if self._taken < 0:
            logged.check_whole(self._home, self._dataset)
            self._taken = sum(part.steps for part in charged(self._home, self._dataset, self._job))
        while not self._charged(steps, json.dumps(facts)):
            with reading(self._home) as link:
                self._seen, found = _state(link, self._dataset), _budget(link, self._dataset)
                if self._seen[1] not in self._limits:
                    logged.check_agreed(self._home, self._dataset, link=link)
                    self._limits = {self._seen[1]}
            self._left = self._allowed(found) if found else 0

    def _charged(self, steps: int, facts: str) -> bool:
        """Insert the charge unless the ledger or the limit has changed since `_left` was worked out."""
        with transaction(self._home) as link:
            state = _state(link, self._dataset)
            if state != self._seen:
                return False
            if steps > self._left:
                raise BudgetSpent(
                    f"The privacy budget of {self._dataset} does not allow {steps} more steps.",
                    "See `cloister budget show`; what was trained so far is kept.",
                )
            part = self._run
            cursor = link.execute(
                "INSERT INTO ledger (dataset, job, created, noise_multiplier, sample_rate, draws, steps,"
                " facts) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    self._dataset,
                    self._job,
                    now(),
                    part.noise_multiplier,
                    part.sample_rate,
                    part.draws,
                    steps,
                    facts,
                ),
            )
            newest = cursor.lastrowid or 0
            taken = self._taken + steps
            entry = logged.charge(
                newest,
                job=self._job,
                total=taken,
                steps=steps,
                noise=part.noise_multiplier,
                rate=part.sample_rate,
                draws=part.draws,
            )
            row = link.execute("SELECT who FROM jobs WHERE id = ?", (self._job,)).fetchone()
            who = row["who"] if row else ""
            audit.record(link, who=who, what=logged.CHARGED, target=self._dataset, **entry)
        self._taken = taken
        self._left -= steps
        self._seen = (newest, state[1])
        return True

    def _allowed(self, found: Budget) -> int:
        """How many steps of this run still fit, up to its own length."""
        limit = min(self._limit, found.epsilon_limit)

        def fits(count: int) -> bool:
            return epsilon([*found.history, replace(self._run, steps=count)], found.delta) <= limit

        return largest(fits, self._run.steps)


def _state(link: sqlite3.Connection, dataset: str) -> tuple[int, float]:
    """The newest charge of a dataset and its limit: what an allowance was worked out from."""
    row = link.execute("SELECT COALESCE(MAX(seq), 0) FROM ledger WHERE dataset = ?", (dataset,)).fetchone()
    limit = link.execute("SELECT epsilon_limit FROM budgets WHERE dataset = ?", (dataset,)).fetchone()
    return int(row[0]), float(limit[0]) if limit else 0.0


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest count up to `most` that fits, 0 if none; `fits` is true up to some count only."""
    if fits(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _budget(link: sqlite3.Connection, dataset: str) -> Budget | None:
    row = link.execute("SELECT * FROM budgets WHERE dataset = ?", (dataset,)).fetchone()
    if row is None:
        return None
    charges = link.execute(
        "SELECT noise_multiplier, sample_rate, draws, SUM(steps) AS steps FROM ledger WHERE dataset = ?"
        " GROUP BY noise_multiplier, sample_rate, draws ORDER BY MIN(seq)",
        (dataset,),
    )
    history = [Steps(**dict(part)) for part in charges]
    return Budget(
        dataset=dataset,
        unit=row["unit"],
        epsilon_limit=row["epsilon_limit"],
        delta=row["delta"],
        history=tuple(merge(history)),
    )
