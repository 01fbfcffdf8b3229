"""The part of the door (session.py) that makes, shows and ends routes. Plain values in and out."""

from __future__ import annotations

from typing import Any

from tui.session import Session
from tui.session_guard import acts


@acts("site.read")
def routes(session: Session) -> list[dict[str, Any]]:
    """Every route with its counts; see `route`."""
    from appliance.serve.routes import load

    return [route(session, name) for name in load(session.home)]


@acts("site.read")
def route(session: Session, name: str) -> dict[str, Any]:
    """One route: name, kind, a, b, state, settings, counts by arm, and what the counts say.

    Raises:
        NotFound: there is none.
    """
    from appliance.serve.counts import arms, counts
    from appliance.serve.routes import get
    from appliance.serve.significance import compare

    found = get(session.home, name)
    facts = dict(found.facts)
    facts.pop("salt", None)
    counted = counts(session.home, name)
    told = {
        "name": name,
        "kind": found.kind,
        "created": found.created,
        "who": found.who,
        "state": "broken" if facts.get("broken") else "rolled back" if found.rolled_back else "live",
        **facts,
        "counts": {"a": counted[found.a], "b": counted[found.b]},
    }
    if found.kind == "split":
        a, b = arms(counted, found)
        wanted = {"difference": facts["difference"]}
        told["thumbs"] = compare(a.thumbs, b.thumbs, **wanted).as_dict()
        told["errors"] = compare(a.errors, b.errors, **wanted, better="fewer").as_dict()
        told["rates"] = {
            arm: {"thumbs": one.thumbs.rate, "errors": one.errors.rate, "rating": one.rating}
            for arm, one in (("a", a), ("b", b))
        }
    return told


@acts("route.change")
def make_split(
    session: Session, name: str, *, a: str, b: str, share: float, difference: float
) -> dict[str, Any]:
    """A new A/B split; see appliance/serve/route_changes.py."""
    from appliance.serve import route_changes

    route_changes.make_split(
        session.home, name, a=a, b=b, share=share, difference=difference, who=session.who
    )
    return route(session, name)


@acts("route.change")
def make_hybrid(
    session: Session, name: str, *, small: str, large: str, threshold: float | None, by: str | None
) -> dict[str, Any]:
    """A new hybrid route, learnt from evaluations of both models; see appliance/ops/hybrid.py."""
    from appliance.ops import hybrid

    hybrid.make_hybrid(
        session.home, name, small=small, large=large, threshold=threshold, by=by, who=session.who
    )
    return route(session, name)


@acts("route.change")
def set_route(
    session: Session, name: str, *, share: float | None = None, threshold: float | None = None
) -> dict[str, Any]:
    """Another share or threshold; it also ends a rollback."""
    from appliance.serve import route_changes

    route_changes.change(session.home, name, share=share, threshold=threshold, who=session.who)
    return route(session, name)


@acts("route.change")
def roll_back(session: Session, name: str) -> dict[str, Any]:
    """Send everything to A from the next request on."""
    from appliance.serve import route_changes

    route_changes.roll_back(session.home, name, who=session.who)
    return route(session, name)


@acts("route.change")
def remove_route(session: Session, name: str) -> None:
    """End a route, with its counts."""
    from appliance.serve import route_changes

    route_changes.remove(session.home, name, who=session.who)
