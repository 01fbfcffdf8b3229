"""The settings of a training as options, in the order in which --help teaches them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import click
import typer

from appliance.core.errors import ConfigWrong
from appliance.train.settings import METHODS, OBJECTIVES, PRECISIONS, SCHEDULES, Settings

PRIVACY, WHAT, LOSS, SCHEDULE, MACHINE = (
    "Privacy: whose, and how much of it is spent",
    "What is trained",
    "On what loss",
    "Schedule: how long, how fast",
    "Machine: memory and speed",
)


def _option(panel: str, text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


def _choice(panel: str, text: str, values: tuple[str, ...], **more: Any) -> Any:
    return _option(panel, text, click_type=click.Choice(values), **more)


OPTIONS: dict[str, Any] = {
    # --- privacy
    "epsilon": Annotated[
        float | None,
        _option(
            PRIVACY,
            "The most epsilon the dataset may have spent when this run ends; smaller protects more."
            " Default: what its budget allows.",
        ),
    ],
    "delta": Annotated[
        float | None,
        _option(PRIVACY, "Chance that epsilon does not hold. Default: 1 / (10 x units), rounded down."),
    ],
    "no_privacy": Annotated[
        bool,
        _option(
            PRIVACY,
            "NO PROTECTION: the model may repeat records word for word, and its card says so for good.",
            "--no-privacy",
        ),
    ],
    "sampling": Annotated[
        str,
        _choice(
            PRIVACY,
            "What is drawn for a step: whole units, of which a few records each are averaged,"
            " or single records.",
            ("unit", "record"),
        ),
    ],
    "sample_rate": Annotated[
        float, _option(PRIVACY, "Chance of each to join a step. Big steps drown the noise, and cost time.")
    ],
    "records_per_unit": Annotated[
        int, _option(PRIVACY, "Most records of a unit in a step (sampling unit) or in the run (record).")
    ],
    "max_grad_norm": Annotated[
        float, _option(PRIVACY, "Clip bound: the most that one unit can push the model in a step.")
    ],
    "plant_secrets": Annotated[
        int,
        _option(
            PRIVACY,
            "Plant that many made-up secrets once, and a few of them up to 16 times, for"
            " `cloister audit-privacy` to ask for.",
            min=0,
        ),
    ],
    # --- what
    "method": Annotated[
        str,
        _choice(
            WHAT,
            "lora: small matrices beside the layers. last-layers, head, full: the base's own weights."
            " prompt: a few new tokens. The fewer numbers are trained, the less the noise hurts.",
            METHODS,
        ),
    ],
    "rank": Annotated[int, _option(WHAT, "LoRA: inner width of the matrices.")],
    "alpha": Annotated[int, _option(WHAT, "LoRA: its weight; the scale is alpha / rank.")],
    "rslora": Annotated[
        bool, _option(WHAT, "LoRA: scale by alpha / sqrt(rank), which suits large ranks.", "--rslora")
    ],
    "targets": Annotated[str, _option(WHAT, "LoRA: names of the linear layers it is put on, with commas.")],
    "layers": Annotated[
        int,
        _option(
            WHAT, "Only that many of the last decoder layers (lora: 0 is all; last-layers: 0 is one).", min=0
        ),
    ],
    "freeze_a": Annotated[
        bool | None,
        _option(
            WHAT,
            "LoRA: leave A as it was drawn, so that its noise and that of B do not multiply."
            " Default: freeze in private runs.",
            "--freeze-a/--train-a",
        ),
    ],
    "dropout": Annotated[float, _option(WHAT, "LoRA: share of inputs dropped in training.")],
    "prompt_tokens": Annotated[int, _option(WHAT, "prompt: how many new tokens.")],
    # --- loss
    "objective": Annotated[
        str,
        _choice(
            LOSS,
            "sft: the answers. pretrain: running text. dpo: preference pairs. distill: a teacher's answers."
            " Default: what the dataset's kind asks for.",
            ("", *OBJECTIVES),
            metavar=f"[{'|'.join(OBJECTIVES)}]",
        ),
    ],
    "beta": Annotated[float, _option(LOSS, "dpo: how firmly it is held to the base.")],
    "teacher": Annotated[str | None, _option(LOSS, "distill: a model of this site to learn from.")],
    "temperature": Annotated[
        float, _option(LOSS, "distill: above 1 the teacher's second choices count more.")
    ],
    "distill_weight": Annotated[
        float, _option(LOSS, "distill: weight of the teacher; the records' answers have the rest.")
    ],
    # --- schedule
    "steps": Annotated[
        int, _option(SCHEDULE, "Steps; 0 chooses. Private: more steps mean more noise in each.")
    ],
    "learning_rate": Annotated[float, _option(SCHEDULE, "Peak learning rate; 0 chooses by method.")],
    "schedule": Annotated[
        str, _choice(SCHEDULE, "How the rate falls: linear and cosine end at a tenth of the peak.", SCHEDULES)
    ],
    "warmup_steps": Annotated[int, _option(SCHEDULE, "Steps over which the rate rises to its peak.", min=0)],
    "weight_decay": Annotated[
        float | None,
        _option(SCHEDULE, "Decoupled weight decay. Default: 0.3 for private LoRA, else 0."),
    ],
    "early_stop": Annotated[
        int,
        _option(
            SCHEDULE,
            "End after so many validations without a better loss, and keep the best; 0 never.",
            min=0,
        ),
    ],
    "batch": Annotated[int, _option(SCHEDULE, "Without privacy: records per step.")],
    "epochs": Annotated[float, _option(SCHEDULE, "Without privacy: passes over the records.")],
    "seed": Annotated[int, _option(SCHEDULE, "Seed of the start. Noise and sampling are never seeded.")],
    # --- machine
    "max_tokens": Annotated[
        int, _option(MACHINE, "Longest record that is read whole; longer ones are counted and told.")
    ],
    "micro_tokens": Annotated[int, _option(MACHINE, "Tokens computed at once: less needs less memory.")],
    "precision": Annotated[
        str, _choice(MACHINE, "What the base computes in; what is trained stays float32.", PRECISIONS)
    ],
    "checkpointing": Annotated[
        bool,
        _option(
            MACHINE,
            "Compute activations twice instead of keeping them: less memory, a third more time.",
            "--checkpointing",
        ),
    ],
    "processes": Annotated[
        int, _option(MACHINE, "Spread each step over that many processes, one per GPU where there are any.")
    ],
}


def takes_settings(function: Callable[..., None], leave_out: tuple[str, ...] = ()) -> Callable[..., None]:
    """A command with these options after its own; it gets them as `settings`, a JSON object of Settings."""
    usual = Settings().as_dict() | {"no_privacy": False, "targets": ",".join(Settings().targets)}
    options = {name: option for name, option in OPTIONS.items() if name not in leave_out}

    @functools.wraps(function)
    def run(face: Any, **given: Any) -> None:
        values = {name: given.pop(name) for name in options}
        function(face, **given, settings=_settings(values))

    signature = inspect.signature(function, eval_str=True)
    own = [part for part in signature.parameters.values() if part.name != "settings"]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=usual[name], annotation=option)
        for name, option in options.items()
    ]
    run.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
    return run


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    epsilon, targets = values["epsilon"], values["targets"].split(",")
    if epsilon is not None and not epsilon > 0:
        raise ConfigWrong(f"Epsilon must be above 0, not {epsilon:g}.", "Give a number such as --epsilon 8.")
    named = {name: value for name, value in values.items() if name != "no_privacy"}
    return named | {
        "private": not values["no_privacy"],
        "targets": [part.strip() for part in targets if part.strip()],
    }
