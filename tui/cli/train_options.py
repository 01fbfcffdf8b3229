"""The options of `cloister train`, in the order in which --help teaches them."""

from __future__ import annotations

from typing import Annotated, Any

import click
import typer

from appliance.train.settings import METHODS, OBJECTIVES, PRECISIONS, SCHEDULES

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


# --- privacy

Epsilon = Annotated[
    float | None,
    _option(
        PRIVACY,
        "The most epsilon the dataset may have spent when this run ends; smaller protects more."
        " Default: what its budget allows.",
    ),
]
Delta = Annotated[
    float | None,
    _option(PRIVACY, "Chance that epsilon does not hold. Default: 1 / (10 x units), rounded down."),
]
NoPrivacy = Annotated[
    bool,
    _option(
        PRIVACY,
        "NO PROTECTION: the model may repeat records word for word, and its card says so for good.",
        "--no-privacy",
    ),
]
Sampling = Annotated[
    str,
    _choice(
        PRIVACY,
        "What is drawn for a step: whole units, of which a few records each are averaged, or single records.",
        ("unit", "record"),
    ),
]
SampleRate = Annotated[
    float, _option(PRIVACY, "Chance of each to join a step. Big steps drown the noise, and cost time.")
]
RecordsPerUnit = Annotated[
    int, _option(PRIVACY, "Most records of a unit in a step (sampling unit) or in the run (record).")
]
MaxGradNorm = Annotated[
    float, _option(PRIVACY, "Clip bound: the most that one unit can push the model in a step.")
]

# --- what

Method = Annotated[
    str,
    _choice(
        WHAT,
        "lora: small matrices beside the layers. last-layers, head, full: the base's own weights."
        " prompt: a few new tokens. The fewer numbers are trained, the less the noise hurts.",
        METHODS,
    ),
]
Rank = Annotated[int, _option(WHAT, "LoRA: inner width of the matrices.")]
Alpha = Annotated[int, _option(WHAT, "LoRA: its weight; the scale is alpha / rank.")]
Rslora = Annotated[
    bool, _option(WHAT, "LoRA: scale by alpha / sqrt(rank), which suits large ranks.", "--rslora")
]
Targets = Annotated[str, _option(WHAT, "LoRA: names of the linear layers it is put on, with commas.")]
Layers = Annotated[
    int,
    _option(
        WHAT, "Only that many of the last decoder layers (lora: 0 is all; last-layers: 0 is one).", min=0
    ),
]
FreezeA = Annotated[
    bool | None,
    _option(
        WHAT,
        "LoRA: leave A as it was drawn, so that its noise and that of B do not multiply."
        " Default: freeze in private runs.",
        "--freeze-a/--train-a",
    ),
]
Dropout = Annotated[float, _option(WHAT, "LoRA: share of inputs dropped in training.")]
PromptTokens = Annotated[int, _option(WHAT, "prompt: how many new tokens.")]

# --- loss

Objective = Annotated[
    str,
    _choice(
        LOSS,
        "sft: the answers. pretrain: running text. dpo: preference pairs. distill: a teacher's answers."
        " Default: what the dataset's kind asks for.",
        ("", *OBJECTIVES),
        metavar=f"[{'|'.join(OBJECTIVES)}]",
    ),
]
Beta = Annotated[float, _option(LOSS, "dpo: how firmly it is held to the base.")]
Teacher = Annotated[str | None, _option(LOSS, "distill: a model of this site to learn from.")]
Temperature = Annotated[float, _option(LOSS, "distill: above 1 the teacher's second choices count more.")]
DistillWeight = Annotated[
    float, _option(LOSS, "distill: weight of the teacher; the records' answers have the rest.")
]

# --- schedule

Steps = Annotated[int, _option(SCHEDULE, "Steps; 0 chooses. Private: more steps mean more noise in each.")]
LearningRate = Annotated[float, _option(SCHEDULE, "Peak learning rate; 0 chooses by method.")]
Schedule = Annotated[
    str, _choice(SCHEDULE, "How the rate falls: linear and cosine end at a tenth of the peak.", SCHEDULES)
]
WarmupSteps = Annotated[int, _option(SCHEDULE, "Steps over which the rate rises to its peak.", min=0)]
WeightDecay = Annotated[
    float | None,
    _option(SCHEDULE, "Decoupled weight decay. Default: 0.3 for private LoRA, else 0."),
]
EarlyStop = Annotated[
    int,
    _option(
        SCHEDULE, "End after so many validations without a better loss, and keep the best; 0 never.", min=0
    ),
]
Batch = Annotated[int, _option(SCHEDULE, "Without privacy: records per step.")]
Epochs = Annotated[float, _option(SCHEDULE, "Without privacy: passes over the records.")]
Seed = Annotated[int, _option(SCHEDULE, "Seed of the start. Noise and sampling are never seeded.")]

# --- machine

MaxTokens = Annotated[
    int, _option(MACHINE, "Longest record that is read whole; longer ones are counted and told.")
]
MicroTokens = Annotated[int, _option(MACHINE, "Tokens computed at once: less needs less memory.")]
Precision = Annotated[
    str, _choice(MACHINE, "What the base computes in; what is trained stays float32.", PRECISIONS)
]
Checkpointing = Annotated[
    bool,
    _option(
        MACHINE,
        "Compute activations twice instead of keeping them: less memory, a third more time.",
        "--checkpointing",
    ),
]
Processes = Annotated[
    int, _option(MACHINE, "Spread each step over that many processes, one per GPU where there are any.")
]
