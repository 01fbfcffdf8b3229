"""Routes: names that clients ask for like a model, behind which one of two models answers.

"split": A and B share the people (split.py), until the counts say which is better. "hybrid": A, the small
one, answers what it can; what it is unsure of after answering (`by` "confidence", label models) or what
the router thinks too hard beforehand (`by` "prompt") goes to B. A rolled-back route sends all to A.

A route's `facts` hold the models' names and the settings; its counts are numbers. No text of anybody is
in the database; what a router has learnt is a file in home.routes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from appliance.core.db import connect, reading
from appliance.core.errors import ModelRejected, NotFound
from appliance.core.home import Home
from appliance.serve.split import in_b

if TYPE_CHECKING:
    from appliance.serve.router import Router

SPLIT, HYBRID = "split", "hybrid"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The model that answers, and why in words for the log: numbers only, nothing of what was asked."""

    model: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Route:
    """One route as the endpoint uses it."""

    name: str
    kind: str
    created: str
    who: str
    facts: Mapping[str, Any]
    router: Router | None = field(default=None, repr=False)

    @property
    def a(self) -> str:
        """The first model: the one that answers after a rollback, the small one of a hybrid."""
        return str(self.facts["a"])

    @property
    def b(self) -> str:
        """The second model: the new one, or the large one."""
        return str(self.facts["b"])

    @property
    def rolled_back(self) -> str | None:
        """When all traffic was sent to A, if it was."""
        return self.facts.get("rolled_back")

    def pick(self, scope: str, text: str, user: str | None = None) -> Choice:
        """Who answers a request of the API key `scope`. `text`: the user's last message."""
        if self.rolled_back:
            return Choice(model=self.a, reason=self.facts.get("broken") or "rolled back")
        if self.kind == SPLIT:
            second = in_b(self.facts["salt"], scope, user, self.facts["share"])
            return Choice(model=self.b if second else self.a, reason=f"split: arm {'B' if second else 'A'}")
        if self.router is None:
            return Choice(model=self.a, reason="small first")
        odds, threshold = self.router.odds(text), float(self.facts["threshold"])
        if odds >= threshold:
            return Choice(model=self.b, reason=f"hard: {odds:.2f} >= {threshold:g}")
        return Choice(model=self.a, reason=f"easy: {odds:.2f} < {threshold:g}")

    def after(self, confidence: float | None) -> Choice | None:
        """The large model, when the small one's answer is too unsure to give; else None."""
        if self.kind != HYBRID or self.facts["by"] != "confidence" or self.rolled_back:
            return None
        threshold = float(self.facts["threshold"])
        if confidence is None or confidence >= threshold:
            return None
        return Choice(model=self.b, reason=f"unsure: {confidence:.2f} < {threshold:g}")


def load(home: Home) -> dict[str, Route]:
    """All routes by name. One whose router file is damaged sends all to A."""
    with reading(home) as link:
        return _load(home, link)


def get(home: Home, name: str) -> Route:
    """The route called `name`.

    Raises:
        NotFound: there is none.
    """
    found = load(home).get(name)
    if found is None:
        raise NotFound(f"There is no route {name}.", "See `cloister route list`.")
    return found


class Routes:
    """The routes of a running endpoint, read again whenever the database has changed."""

    def __init__(self, home: Home) -> None:
        self._home, self._link, self._seen = home, connect(home), -1
        self._routes: dict[str, Route] = {}
        self._rows: list[tuple[Any, ...]] = []

    def get(self, name: str) -> Route | None:
        """The route called `name`, or None. About 5 microseconds unless something has changed."""
        return self.all().get(name)

    def all(self) -> Mapping[str, Route]:
        """All routes by name."""
        version = self._link.execute("PRAGMA data_version").fetchone()[0]
        if version != self._seen:
            rows = [tuple(row) for row in self._link.execute("SELECT * FROM routes ORDER BY name")]
            if rows != self._rows:  # counts change all the time, routes seldom
                self._routes, self._rows = _load(self._home, self._link), rows
            self._seen = version
        return self._routes

    def close(self) -> None:
        """Close the connection to the database."""
        self._link.close()


def _load(home: Home, link: sqlite3.Connection) -> dict[str, Route]:
    found = {}
    for row in link.execute("SELECT * FROM routes ORDER BY name"):
        facts, learnt = json.loads(row["facts"]), None
        if file := facts.get("router"):
            try:
                from appliance.serve import router as routers  # numpy, where a route has learnt something

                learnt = routers.load(home.routes / file["file"], file["sha256"])
            except ModelRejected as problem:
                facts |= {"rolled_back": row["created"], "broken": problem.message}
        found[row["name"]] = Route(
            name=row["name"],
            kind=row["kind"],
            created=row["created"],
            who=row["who"],
            facts=facts,
            router=learnt,
        )
    return found
