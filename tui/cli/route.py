"""cloister route: names behind which one of two models answers."""

from __future__ import annotations

from typing import Annotated

import typer

from tui.cli.face import Face, command
from tui.cli.route_lines import head_lines, hybrid_lines, split_lines

app = typer.Typer(
    help="Names that clients ask for like a model: an A/B split, or small model first.", no_args_is_help=True
)
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
    for line in head_lines(made, {f"A ({1 - share:.0%} of people)": a, f"B ({share:.0%} of people)": b}):
        face.say(line)
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
    for line in hybrid_lines(made):
        face.say(line)
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
    for line in (split_lines if found["kind"] == "split" else hybrid_lines)(found):
        face.say(line)
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
