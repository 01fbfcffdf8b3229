"""What an operator may set for a training run, and what the defaults are."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from appliance.core.errors import ConfigWrong


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A LoRA run. Units are patients (or whatever the dataset protects).

    `sampling` says what is drawn for a step: "unit" (then up to `records_per_unit` of its records,
    averaged and clipped once) or "record" (each clipped alone; a unit has `records_per_unit` of them
    at most, the others are left out, and its whole share is accounted for).

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
    rank: int = 4
    alpha: int = 8
    targets: tuple[str, ...] = ("v_proj", "o_proj", "down_proj")
    layers: int = 0
    freeze_a: bool | None = None
    steps: int = 0
    sampling: str = "unit"
    sample_rate: float = 0.35
    batch: int = 64
    epochs: float = 3.0
    learning_rate: float = 0.0
    weight_decay: float | None = None
    max_grad_norm: float = 0.2
    records_per_unit: int = 1
    max_tokens: int = 512
    micro_tokens: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [
            ("epsilon", self.epsilon is None or self.epsilon > 0),
            ("delta", self.delta is None or 0 < self.delta < 1),
            ("rank", self.rank >= 1),
            ("alpha", self.alpha >= 1),
            ("targets", bool(self.targets)),
            ("layers", self.layers >= 0),
            ("steps", self.steps >= 0),
            ("sampling", self.sampling in ("unit", "record")),
            ("sample_rate", 0 < self.sample_rate <= 1),
            ("batch", self.batch >= 1),
            ("epochs", self.epochs > 0),
            ("learning_rate", self.learning_rate >= 0),
            ("weight_decay", self.weight_decay is None or 0 <= self.weight_decay < 1),
            ("max_grad_norm", self.max_grad_norm > 0),
            ("records_per_unit", self.records_per_unit >= 1),
            ("max_tokens", self.max_tokens >= 16),
            ("micro_tokens", self.micro_tokens >= 16),
        ]
        bad = [name for name, right in wrong if not right]
        if bad:
            raise ConfigWrong(
                f"These settings are out of range: {', '.join(bad)}.", "See `cloister train --help`."
            )

    @property
    def trains_a(self) -> bool:
        """Whether LoRA's A is trained along with B."""
        return not (self.private if self.freeze_a is None else self.freeze_a)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"targets": list(self.targets)}


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
