"""Making, changing and ending routes; each change with its line in the audit log."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from appliance.core.db import transaction
from appliance.core.errors import ApplianceError, ConfigWrong, NotFound
from appliance.core.events import now
from appliance.core.home import Home
from appliance.models import registry
from appliance.security import audit
from appliance.security.people import guard
from appliance.serve.routes import SPLIT, Route, get, load
from appliance.serve.split import new_salt

_CHANGE = "route.change"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def make_split(home: Home, name: str, *, a: str, b: str, share: float, difference: float, who: str) -> Route:
    """A new split that gives B `share` of the people; `difference` is the smallest one worth seeing.

    Raises:
        ConfigWrong: a name, share or difference that cannot be used. NotFound: a model.
    """
    _check_share(share)
    if not 0 < difference < 1:
        raise ConfigWrong(f"A difference of {difference:g} cannot be looked for.", "Give one like 0.1.")
    facts = {"a": a, "b": b, "share": share, "difference": difference, "salt": new_salt()}
    return add(home, name, SPLIT, facts, who=who)


def add(home: Home, name: str, kind: str, facts: dict[str, Any], *, who: str) -> Route:
    """Enter a route, with its audit line.

    Raises:
        ConfigWrong: the name is taken by a route or a model, or both models are one. NotFound: a model.
    """
    check_new(home, name, facts["a"], facts["b"])
    with transaction(home) as link:
        guard.spend(link, home, who, _CHANGE, name)
        if link.execute("SELECT 1 FROM routes WHERE name = ?", (name,)).fetchone():
            raise _taken(name)
        link.execute("DELETE FROM route_counts WHERE route = ?", (name,))
        link.execute(
            "INSERT INTO routes (name, kind, created, who, facts) VALUES (?, ?, ?, ?, ?)",
            (name, kind, now(), who, json.dumps(facts)),
        )
        audit.record(link, who=who, what="route.new", target=name, kind=kind, **_told(facts))
    return get(home, name)


def check_new(home: Home, name: str, a: str, b: str) -> None:
    """Check that a route of this name over these models can be made.

    Raises:
        ConfigWrong: the name is taken by a route or a model, or both models are one. NotFound: a model.
    """
    if not _NAME.fullmatch(name):
        raise ConfigWrong(
            f"{name[:40]!r} cannot name a route.",
            "Give 1 to 64 letters, digits, '-', '_' or '.'; first a letter or digit.",
        )
    registry.check_word(name)
    if a == b:
        raise ConfigWrong("Both models of a route are the same.", "Name two different models.")
    entries = registry.models(home)
    for model in (a, b):
        entry = registry.get(home, model)
        registry.check_alone(entry)
        if entry.kind != "gguf" and not any(e.kind == "gguf" and e.parent == model for e in entries):
            raise NotFound(f"{model} has no GGUF file yet.", f"Make one: cloister quantize {model}.")
    if any(entry.name == name for entry in entries):
        raise ConfigWrong(f"There is already a model named {name}.", "Choose another name for the route.")
    if name in load(home):
        raise _taken(name)


def change(
    home: Home, name: str, *, share: float | None = None, threshold: float | None = None, who: str
) -> Route:
    """Another share or threshold; it also ends a rollback.

    Raises:
        NotFound: there is no such route. ConfigWrong: a setting that this kind of route does not have.
    """
    route = get(home, name)
    wanted = {"share": share, "threshold": threshold}
    given = {setting: value for setting, value in wanted.items() if value is not None}
    own = "share" if route.kind == SPLIT else "threshold"
    if not given:
        raise ConfigWrong("Nothing was given to set.", f"Give --{own}.")
    if set(given) != {own}:
        raise ConfigWrong(f"A {route.kind} has a {own} and nothing else to set.", f"Give --{own} alone.")
    _check_share(given[own])
    return _update(home, name, {**given, "rolled_back": None}, what="route.set", who=who)


def roll_back(home: Home, name: str, *, who: str) -> Route:
    """Send everything to A, from the next request on; rolling back again changes nothing.

    Raises:
        NotFound: there is no such route.
    """
    route = get(home, name)
    if route.rolled_back and not route.facts.get("broken"):
        return route
    return _update(home, name, {"rolled_back": now()}, what="route.rollback", who=who)


def remove(home: Home, name: str, *, who: str) -> None:
    """End a route, its counts and what its router has learnt.

    Raises:
        NotFound: there is no such route.
    """
    route = get(home, name)
    with transaction(home) as link:
        guard.spend(link, home, who, _CHANGE, name)
        link.execute("DELETE FROM routes WHERE name = ?", (name,))
        link.execute("DELETE FROM route_counts WHERE route = ?", (name,))
        audit.record(link, who=who, what="route.remove", target=name)
    if route.facts.get("router"):
        (home.routes / route.facts["router"]["file"]).unlink(missing_ok=True)


def _update(home: Home, name: str, facts: dict[str, Any], *, what: str, who: str) -> Route:
    with transaction(home) as link:
        guard.spend(link, home, who, _CHANGE, name)
        row = link.execute("SELECT facts FROM routes WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise NotFound(f"There is no route {name}.", "See `cloister route list`.")
        new = {**json.loads(row["facts"]), **facts}
        link.execute("UPDATE routes SET facts = ? WHERE name = ?", (json.dumps(new), name))
        audit.record(link, who=who, what=what, target=name, **_told(new))
    return get(home, name)


def _told(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit log says of a route; never its salt."""
    names = ("a", "b", "share", "threshold", "by", "rolled_back")
    return {name: facts[name] for name in names if facts.get(name) is not None}


def _check_share(value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigWrong(f"{value:g} is not between 0 and 1.", "Give a number like 0.5.")


def _taken(name: str) -> ApplianceError:
    return ConfigWrong(
        f"There is already a route named {name}.",
        f"Choose another name, or change it: cloister route set {name}.",
    )
