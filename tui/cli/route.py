"""cloister route: names behind which one of two models answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from tui.cli.face import Face, command

app = typer.Typer(
    help="Names that clients ask for like a model: an A/B split, or small model first.", no_args_is_help=True
)
_FEWEST = 10  # answers an arm; of fewer a difference says nothing, and looks as if it did
Name = Annotated[str, typer.Argument(help="The route's name: what clients give as model.")]


@command(app, "split")
def split(
    face: Face,
    name: Name,
    a: Annotated[str, typer.Option("--a", help="The model in use.")],
    b: Annotated[str, typer.Option("--b", help="The model on trial.")],
    share: Annotated[float, typer.Option(help="Share of people who get B.", min=0, max=1)] = 0.5,
    difference: Annotated[
        float, typer.Option(help="Smallest difference in thumbs up that is worth seeing; 0.1 is ten points.")
    ] = 0.1,
) -> None:
    """Try a model on some of the people. Each person always gets the same one."""
    from tui import session_routes

    made = session_routes.make_split(face.session, name, a=a, b=b, share=share, difference=difference)
    _head(face, made, {f"A ({1 - share:.0%} of people)": a, f"B ({share:.0%} of people)": b})
    face.say(f"See how it goes: cloister route show {name}")
    face.say(f"Send all to A:   cloister route rollback {name}")
    face.result(made)


@command(app, "hybrid")
def hybrid(
    face: Face,
    name: Name,
    small: Annotated[str, typer.Option(help="The model that is asked first.")],
    large: Annotated[str, typer.Option(help="The model that gets what is too hard.")],
    threshold: Annotated[
        float | None, typer.Option(help="Where to send on; left out, the table decides.", min=0, max=1)
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="confidence (of the small one's label) or prompt (learnt). Left out: what fits."),
    ] = None,
) -> None:
    """Small model first, the large one for what is hard. Learns from evaluations of both models."""
    from tui import session_routes

    made = session_routes.make_hybrid(
        face.session, name, small=small, large=large, threshold=threshold, by=by
    )
    _say_hybrid(face, made)
    face.result(made)


@command(app, "list")
def list_routes(face: Face) -> None:
    """List routes."""
    from tui import session_routes

    found = session_routes.routes(face.session)
    face.table(
        ("route", "kind", "state", "requests of A", "of B"),
        [
            (
                one["name"][:36],
                one["kind"],
                one["state"],
                one["counts"]["a"]["requests"],
                one["counts"]["b"]["requests"],
            )
            for one in found
        ],
        "No routes yet. Make one: cloister route split NAME --a MODEL --b MODEL",
    )
    face.result({"routes": found})


@command(app, "show")
def show(face: Face, name: Name) -> None:
    """Show a route: live counts, what they mean so far, the table of thresholds."""
    from tui import session_routes

    found = session_routes.route(face.session, name)
    (_say_split if found["kind"] == "split" else _say_hybrid)(face, found)
    face.result(found)


@command(app, "set")
def set_route(
    face: Face,
    name: Name,
    share: Annotated[float | None, typer.Option(help="A split's share of people who get B.")] = None,
    threshold: Annotated[float | None, typer.Option(help="A hybrid's threshold.")] = None,
) -> None:
    """Change a route's share or threshold, from the next request on. Also ends a rollback."""
    from tui import session_routes

    changed = session_routes.set_route(face.session, name, share=share, threshold=threshold)
    face.say(f"Route {name} is changed; it is {changed['state']}.")
    face.result(changed)


@command(app, "rollback")
def rollback(face: Face, name: Name) -> None:
    """Send everything to A at once."""
    from tui import session_routes

    found = session_routes.roll_back(face.session, name)
    face.say(f"Route {name} is rolled back. Everything goes to")
    face.say(f"  {found['a']}")
    own = "share" if found["kind"] == "split" else "threshold"
    face.say(f"Undo it: cloister route set {name} --{own} {found[own]:g}")
    face.result(found)


@command(app, "remove")
def remove(face: Face, name: Name) -> None:
    """End a route, with its counts and what its router has learnt."""
    from tui import session_routes

    session_routes.remove_route(face.session, name)
    face.say(f"Route {name} is removed.")
    face.result({"name": name, "removed": True})


def _head(face: Face, found: Mapping[str, Any], models: Mapping[str, str]) -> None:
    face.say(f"Route {found['name']} ({found['kind']}), {found['state']}")
    if found.get("broken"):
        face.say(found["broken"])
    width = max(map(len, models))
    for arm, model in models.items():
        face.say(f"  {arm:{width}}  {model}")
    face.say()


def _say_split(face: Face, found: Mapping[str, Any]) -> None:
    _head(face, found, {"A": found["a"], f"B ({found['share']:.0%} of people)": found["b"]})
    face.table(
        ("arm", "requests", "errors", "up", "down", "thumbs up", "rating"),
        [
            (
                arm.upper(),
                *(found["counts"][arm][what] for what in ("requests", "errors", "up", "down")),
                _percent(found["rates"][arm]["thumbs"]),
                _figure(found["rates"][arm]["rating"]),
            )
            for arm in ("a", "b")
        ],
        "",
    )
    for what, words in (("thumbs", "Thumbs up"), ("errors", "Errors")):
        of = [_asked(found["counts"][arm], what) for arm in ("a", "b")]
        one = found[what]
        face.say(f"{words}: {one['verdict']}.")
        if one["difference"] is not None and min(of) >= _FEWEST:
            face.say(
                f"  B - A {one['difference'] * 100:+.1f} points,"
                f" 95 % interval {one['low'] * 100:+.1f} to {one['high'] * 100:+.1f}, p {one['p']:.3f}"
            )
    face.say(f"Decide once each arm has {found['thumbs']['needed']} thumbs; earlier looks mislead.")
    face.say("Answers count as independent: many from few people make this look too sure.")


def _asked(counts: Mapping[str, int], what: str) -> int:
    """How many answers an arm's share is of."""
    return counts["up"] + counts["down"] if what == "thumbs" else counts["requests"]


def _say_hybrid(face: Face, found: Mapping[str, Any]) -> None:
    _head(face, found, {"small": found["a"], "large": found["b"]})
    counts, words = found["counts"], "sure" if found["by"] == "confidence" else "odds"
    sent = counts["b"]["requests"]
    face.say(f"Goes by {found['by']}, threshold {found['threshold']:g}. Sent on so far: {sent}.")
    if learnt := found.get("learnt"):
        face.say(f"Measured on {learnt['records']} records of {learnt['dataset']} ({learnt['split']} split).")
        face.say(f"The large model's answer is better on {learnt['large_better']} of them.")
    label = not learnt or learnt["task"] == "label"
    face.table(
        (f"threshold ({words})", "sent on", "right" if label else "likelihood", "seconds", "in use"),
        [
            (
                f"{row['threshold']:.3f}",
                f"{row['share']:.1%}",
                f"{row['quality']:.4f}",
                f"{row['seconds']:.4f}",
                "<" if row["threshold"] == found["threshold"] else "",
            )
            for row in found["table"]
        ],
        "No evaluation has both models, so there is no table.",
    )
    if found.get("router"):
        face.say("What the router learnt from records is not protected by differential privacy.")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
