"""What an operator may set for a training run, and what the defaults are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from math import inf
from typing import Any

from appliance.core.errors import ConfigWrong

METHODS = ("lora", "last-layers", "head", "full", "prompt")
OBJECTIVES = ("sft", "pretrain", "dpo", "distill")
SCHEDULES = ("linear", "cosine", "constant")
PRECISIONS = ("float32", "bfloat16")
MOST_STEPS = 10_000_000
_FUSED = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "qkv_proj"),
    **dict.fromkeys(("gate_proj", "up_proj"), "gate_up_proj"),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run. Units are patients (or whatever the dataset protects).

    `method` says what is trained: "lora" (with `rslora`, the scale is alpha / sqrt(rank)), "last-layers"
    (the last `layers` decoder layers, 0: one), "head" (the output layer), "full", or "prompt"
    (`prompt_tokens` new tokens put before every prompt). `objective` says on what loss: "sft" (answers),
    "pretrain" (running text), "dpo" (preference pairs, `beta`), "distill" (the answers of `teacher`, a
    model of the registry, at `temperature`, with weight `distill_weight` beside the records' own);
    "" takes what the dataset's task asks for.

    `precision` "bfloat16" computes in bfloat16 and keeps what is trained in float32. `early_stop` ends the
    run after so many validations without a better loss and keeps the best; 0 never does. `processes`
    spreads every step over that many processes, one per GPU where there are any.

    `sampling` says what is drawn for a step: "unit" (then up to `records_per_unit` of its records,
    averaged and clipped once) or "record" (each clipped alone; a unit has `records_per_unit` of them
    at most, the others are left out, and its whole share is accounted for).

    `plant_secrets` plants so many made-up secrets among the records, and a few more of them several times,
    for the privacy audit to look for (data/planted.py); they are units like any other.

    `epsilon` is the most that the dataset may have spent when the run ends; None: its budget.

    The private defaults come from runs on made-up and public records: a big expected batch and few
    steps, few parameters, all layers, the sum of both losses, and LoRA's A left as it was drawn
    (`freeze_a`; None: in private runs), because otherwise its noise and that of B multiply. They are
    fixed in advance, so they spend no budget. `weight_decay` (None: 0.3 in private runs, else 0) is
    decoupled (Loshchilov and Hutter 2019); it works on B, which starts at zero, so it shrinks what the
    noise of early steps left there; small weights quantise better.
    """

    private: bool = True
    epsilon: float | None = None
    delta: float | None = None
    method: str = "lora"
    objective: str = ""
    rank: int = 4
    alpha: int = 8
    rslora: bool = False
    dropout: float = 0.0
    targets: tuple[str, ...] = ("v_proj", "o_proj", "down_proj")
    layers: int = 0
    prompt_tokens: int = 16
    beta: float = 0.1
    teacher: str | None = None
    temperature: float = 2.0
    distill_weight: float = 0.5
    freeze_a: bool | None = None
    steps: int = 0
    sampling: str = "unit"
    sample_rate: float = 0.35
    batch: int = 64
    epochs: float = 3.0
    learning_rate: float = 0.0
    schedule: str = "linear"
    warmup_steps: int = 5
    weight_decay: float | None = None
    early_stop: int = 0
    precision: str = "float32"
    checkpointing: bool = False
    processes: int = 1
    max_grad_norm: float = 0.2
    records_per_unit: int = 1
    plant_secrets: int = 0
    max_tokens: int = 512
    micro_tokens: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        rules: list[tuple[str, bool, str]] = [
            ("epsilon", self.epsilon is None or 0 < self.epsilon < inf, "above 0"),
            ("delta", self.delta is None or 0 < self.delta < 1, "above 0 and below 1"),
            ("method", self.method in METHODS, f"one of {', '.join(METHODS)}"),
            ("objective", self.objective in ("", *OBJECTIVES), f"one of {', '.join(OBJECTIVES)}"),
            ("rank", 1 <= self.rank <= 4096, "1 to 4096"),
            ("alpha", 1 <= self.alpha <= 65536, "1 to 65536"),
            ("dropout", 0 <= self.dropout < 1, "0 or more and below 1"),
            ("prompt_tokens", 1 <= self.prompt_tokens <= 256, "1 to 256"),
            ("beta", 0 < self.beta < inf, "above 0"),
            ("temperature", 0 < self.temperature < inf, "above 0"),
            ("distill_weight", 0 < self.distill_weight <= 1, "above 0 and at most 1"),
            ("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            ("warmup_steps", 0 <= self.warmup_steps <= MOST_STEPS, f"0 to {MOST_STEPS:,}"),
            ("early_stop", self.early_stop >= 0, "0 or more"),
            ("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            ("processes", 1 <= self.processes <= 64, "1 to 64"),
            ("targets", bool(self.targets), "at least one name of a layer"),
            ("layers", 0 <= self.layers <= 1024, "0 to 1024"),
            ("steps", 0 <= self.steps <= MOST_STEPS, f"0 to {MOST_STEPS:,}"),
            ("sampling", self.sampling in ("unit", "record"), "unit or record"),
            ("sample_rate", 0 < self.sample_rate <= 1, "above 0 and at most 1"),
            ("batch", 1 <= self.batch <= MOST_STEPS, f"1 to {MOST_STEPS:,}"),
            ("epochs", 0 < self.epochs <= 10_000, "above 0 and at most 10,000"),
            ("learning_rate", 0 <= self.learning_rate < inf, "0 or more"),
            ("seed", 0 <= self.seed < 2**31, "0 to 2,147,483,647"),
            (
                "weight_decay",
                self.weight_decay is None or 0 <= self.weight_decay < 1,
                "0 or more and below 1",
            ),
            ("max_grad_norm", 1e-6 <= self.max_grad_norm <= 1e6, "0.000001 to 1,000,000"),
            ("records_per_unit", 1 <= self.records_per_unit <= 10_000, "1 to 10,000"),
            ("plant_secrets", 0 <= self.plant_secrets <= 256, "0 to 256"),
            ("max_tokens", 16 <= self.max_tokens <= 1_000_000, "16 to 1,000,000"),
            ("micro_tokens", 16 <= self.micro_tokens <= 10_000_000, "16 to 10,000,000"),
        ]
        bad = {name: allowed for name, right, allowed in rules if not right}
        if bad:
            ranges = "; ".join(f"--{name.replace('_', '-')} {allowed}" for name, allowed in bad.items())
            raise ConfigWrong(
                f"These settings are out of range: {', '.join(bad)}.",
                f"Give {ranges}. See `cloister train --help`.",
            )

    @property
    def trains_a(self) -> bool:
        """Whether LoRA's A is trained along with B."""
        return not (self.private if self.freeze_a is None else self.freeze_a)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"targets": list(self.targets)}


def targets_in(names: Iterable[str], settings: Settings) -> list[str]:
    """The base's own names for `settings.targets`, of its linear layers `names`.

    Phi-3 has q, k and v in one matrix and gate and up in another; there the whole of it is trained.

    Raises:
        ConfigWrong: the base has no layer of one of these names.
    """
    known = set(names) - {"lm_head"}
    found = [name if name in known else _FUSED.get(name, name) for name in settings.targets]
    missing = [asked for asked, name in zip(settings.targets, found, strict=True) if name not in known]
    if missing:
        raise ConfigWrong(
            f"The base has no layers named {', '.join(missing)}.",
            f"Choose --targets from: {', '.join(sorted(known))}.",
        )
    return list(dict.fromkeys(found))


def settings_from(values: dict[str, Any]) -> Settings:
    """Settings from a JSON object; what is missing takes its default.

    Raises:
        ConfigWrong: unknown names or values out of range.
    """
    known = {field.name for field in fields(Settings)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigWrong(f"Unknown training settings: {', '.join(unknown)}.", "See `cloister train --help`.")
    if "targets" in values:
        values = values | {"targets": tuple(values["targets"])}
    return Settings(**values)
