"""cloister federate simulate."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from appliance.core.profile import check_site
from tui.cli.curves import room
from tui.cli.face import Face
from tui.widgets.chart import draw_chart

_LINES = 10


def simulate(
    face: Face,
    sites: Annotated[int, typer.Option(min=2, max=2000, help="How many sites.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds.")] = 10,
    data: Annotated[
        str | None,
        typer.Option(
            help="Dataset (of labels) to deal to the sites; left out: made-up messages of a clinic."
        ),
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base model; left out: the shipped one.")] = None,
    split: Annotated[
        str, typer.Option(help="iid, label, dirichlet (skewed labels) or patients (skewed sizes).")
    ] = "iid",
    alpha: Annotated[float, typer.Option(help="How alike sites are: 100 much, 1 fairly, 0.1 hardly.")] = 0.5,
    rule: Annotated[str, typer.Option(help="mean, products, trimmed-mean, median or krum.")] = "mean",
    steps: Annotated[int, typer.Option(min=1, help="Training steps of a site in a round.")] = 5,
    private: Annotated[bool, typer.Option("--privacy/--no-privacy", help="Train with noise.")] = True,
    epsilon: Annotated[float, typer.Option(help="The most for each site, over all rounds.")] = 8.0,
    sample_rate: Annotated[float, typer.Option(help="Share of a site's units in a private step.")] = 0.35,
    batch: Annotated[int, typer.Option(min=1, help="Records in a step without privacy.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Of the sites; 0: the usual one.")] = 0.0,
    packing: Annotated[str, typer.Option(help="How updates travel: i8, f16 or f32.")] = "i8",
    seed: Annotated[int, typer.Option(help="Of split and adapter.")] = 0,
    engine: Annotated[str, typer.Option(help="flower (needs Ray) or processes.")] = "flower",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that play sites.")] = 2,
    detach: Annotated[bool, typer.Option("--detach", help="Start it and come back at once.")] = False,
) -> None:
    """Play a federation on this machine, to plan one: the same rounds, gate and averages, but no links.

    Nothing of it stays: neither model nor privacy spent. With a real dataset it counts as learning without
    privacy, so two people must agree where people have roles.
    """
    from tui import session_simulate

    check_site()
    spec: dict[str, Any] = {
        "sites": sites,
        "rounds": rounds,
        "split": split,
        "alpha": alpha,
        "rule": rule,
        "steps": steps,
        "private": private,
        "epsilon": epsilon,
        "sample_rate": sample_rate,
        "batch": batch,
        "learning_rate": learning_rate,
        "packing": packing,
        "seed": seed,
        "engine": engine,
        "workers": workers,
    }
    spec |= {name: value for name, value in (("dataset", data), ("base", base)) if value is not None}
    job_id = session_simulate.start_simulation(face.session, spec)
    if detach:
        face.say(f"Job {job_id} runs. Follow it with: cloister job tail {job_id}")
        face.result({"job": job_id})
        return
    done: dict[str, Any] = face.follow(job_id).end["result"]
    say_simulated(face, done)
    face.result(done | {"job": job_id})


def say_simulated(face: Face, done: dict[str, Any]) -> None:
    """The table of rounds, the curve of accuracy, and what it means."""
    face.table(
        ("round", "accuracy", "seconds", "of it scoring", "sites", "refused"),
        [
            (
                one["round"],
                f"{one['accuracy']:.3f}",
                f"{one['seconds']:.1f}",
                f"{one['scoring_seconds']:.1f}",
                one["sites"],
                ", ".join(f"{code} {count}" for code, count in sorted(one["refused"].items())) or "-",
            )
            for one in done["rounds"]
        ],
        "No round was played.",
    )
    points = [(float(one["round"]), float(one["accuracy"])) for one in done["rounds"]]
    if len(points) > 1:
        for line in draw_chart(points, [], room(), _LINES):
            face.say(line)
    final = done["final"]
    face.wrap(
        f"accuracy {final['accuracy']:.3f} [{final['low']:.3f}, {final['high']:.3f}] on"
        f" {final['records']:,} held-out records; a site has {done['records']['least']:,} to"
        f" {done['records']['most']:,} records, and its update is {done['bytes_per_update'] / 1e3:.1f} kB"
    )
    if done["left_out"]:
        face.wrap(f"{done['left_out']} sites could not take part: see the job's log.")
    if done["epsilon_per_site"] is None:
        face.say("no privacy")
    else:
        face.say(f"epsilon {done['epsilon_per_site']:.2f}, delta {done['delta']:.2g} at each site")
