"""cloister search."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from tui.cli.face import Face, command
from tui.cli.train import as_planned, say_privacy, training_spec
from tui.cli.train_options import takes_settings


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app)(takes_settings(search, leave_out=("processes",)))


def search(
    face: Face,
    dataset: Annotated[str, typer.Argument(help="Dataset, or dataset@version.")],
    over: Annotated[
        str,
        typer.Option(
            help="What to try, as NAME=LOW..HIGH or NAME=A|B, with commas:"
            " learning_rate=0.05..0.4,rank=2|4|8. Default: the learning rate around the usual one."
        ),
    ] = "",
    trials: Annotated[int, typer.Option(help="How many trainings. All are paid for.")] = 6,
    public: Annotated[
        bool,
        typer.Option(
            "--public",
            help="You declare these records PUBLIC: nothing is charged, nobody is protected, no model is"
            " kept, only the best settings. Written to the audit log.",
        ),
    ] = False,
    base: Annotated[str | None, typer.Option(help="Base model; may be left out when there is one.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model made (default: method and job).")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the plan and start nothing.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start it and come back at once.")] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Try several settings of a training and keep the best by validation loss.

    Under differential privacy every trial costs budget: the noise is chosen so that all of them together
    stay within epsilon, so more trials mean more noise in each. Or search on records that are public
    (--public) and train with what was found. Ctrl-C stops; `cloister job resume` goes on with the trial.
    """
    spec = training_spec(face, dataset, base, name, settings)
    spec |= {"over": over, "trials": trials, "public": public}
    told = face.session.plan_search(spec)
    result = as_planned(face, told, partial(face.session.start_search, spec), plan=plan, detach=detach)
    if result is None:
        return
    say_searched(face, result | {"dataset": dataset})
    face.say(f"Next: {as_command(result)}")
    face.result(result)


def say_searched(face: Face, result: dict[str, Any]) -> None:
    """The trials, the model that was kept, and what it cost."""
    say_trials(face, result)
    if result["name"] is not None:
        on = f" on {result['dataset']}" if result.get("dataset") else ""
        face.say(f"{result['name']}: trial {result['best']['number']}, {result['steps']} steps{on}")
        say_privacy(face, result["privacy"])


def as_command(result: dict[str, Any]) -> str:
    """The command to give after a search: judge the model that was kept, or train with what was found."""
    if result["name"] is not None:
        return f"cloister evaluate {result['name']}"
    return f"cloister train DATASET --base {result['base']} {as_options(result['best'])}"


def say_trials(face: Face, result: dict[str, Any]) -> None:
    """The trials table, the best first, and what mattered."""
    names = list(result["over"])
    ordered = sorted(result["tried"], key=lambda trial: (trial["loss"] is None, trial["loss"] or 0.0))
    face.table(
        ("trial", *names, "val loss", "steps", "time", "ended"),
        [
            (
                trial["number"],
                *(figure(trial["settings"][name]) for name in names),
                "-" if trial["loss"] is None else f"{trial['loss']:.4f}",
                trial["steps"] or "-",
                f"{int(trial['seconds']) // 60:02d}:{int(trial['seconds']) % 60:02d}",
                trial["state"],
            )
            for trial in ordered
        ],
        "No trials.",
    )
    if result["importance"]:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in result["importance"].items())
        face.say(f"what mattered: {shares}")
    if result["plot"]:
        face.say(f"trials: {result['plot']}")


def as_options(trial: dict[str, Any]) -> str:
    """A trial's settings as options of `cloister train`."""
    words = []
    for name, value in trial["settings"].items():
        option = name.replace("_", "-")
        if name == "freeze_a":
            words.append("--freeze-a" if value else "--train-a")
        elif isinstance(value, bool):
            words += [f"--{option}"] if value else []
        else:
            words.append(f"--{option} {figure(value)}")
    return " ".join(words)


def figure(value: Any) -> str:
    """Three digits of a number, or the word."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
