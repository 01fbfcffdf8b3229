"""What a search may try: `learning_rate=0.05..0.4,rank=2|4|8`, read and checked.

Only settings that leave the price of a step alone can be searched where trials are charged: all of
them are then steps of one mechanism, whatever the search decides from the ones before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import isfinite, prod
from typing import Any

from appliance.core.errors import ConfigWrong
from appliance.train.plan import usual_rate
from appliance.train.settings import Settings

# Names of Settings. None of them changes the loss itself: trials are compared by it.
SAME_PRICE = (
    *("learning_rate", "weight_decay", "warmup_steps", "schedule", "max_grad_norm"),
    *("rank", "alpha", "rslora", "freeze_a", "dropout", "layers"),
)
OWN_PRICE = ("steps", "sample_rate", "records_per_unit")
WITHOUT_PRIVACY = ("steps", "batch", "epochs")
_ZERO_MEANS_USUAL = ("learning_rate", "steps")
_NARROW = 1e-3  # a range that is less wide than this, for its size, is a value
_AROUND = 4  # the usual learning rate, divided and multiplied by this, where nothing else is asked


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of `values`."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return "|".join(_word(value) for value in self.values)


@dataclass(frozen=True, kw_only=True)
class Range:
    """From `low` to `high`, whole numbers if `whole`; drawn evenly in the logarithm where `low` > 0."""

    low: float
    high: float
    whole: bool

    def __str__(self) -> str:
        return f"{_word(self.low)}..{_word(self.high)}"


Space = dict[str, Choice | Range]


def searchable(settings: Settings, *, charged: bool) -> tuple[str, ...]:
    """The settings that a search from `settings` may try."""
    if charged:
        return SAME_PRICE
    return SAME_PRICE + (OWN_PRICE if settings.private else WITHOUT_PRIVACY)


def read_space(text: str, settings: Settings, *, charged: bool) -> Space:
    """The space that `text` describes; "" is the learning rate around the method's usual one.

    Raises:
        ConfigWrong: a setting that is unknown, cannot be searched, is named twice or takes no such values.
    """
    if not text.strip():
        middle = settings.learning_rate or usual_rate(settings)
        return {"learning_rate": Range(low=middle / _AROUND, high=middle * _AROUND, whole=False)}
    allowed, space = searchable(settings, charged=charged), Space()
    for part in text.split(","):
        name, sign, values = (piece.strip() for piece in part.partition("="))
        if not sign or not name or not values or name in space:
            raise _wrong(f"{part.strip()!r} is not NAME=VALUES with a name of its own.")
        if name not in allowed:
            raise ConfigWrong(
                f"{name} cannot be searched here.",
                f"Choose from {', '.join(allowed)}"
                + ("; the others change what a step costs, or the loss itself." if charged else "."),
            )
        space[name] = _values(name, values)
        for end in _ends(space[name]):
            _check(settings, name, end)
    return space


def start(settings: Settings, space: Space) -> dict[str, Any] | None:
    """The settings as they are, as the first trial; None where they lie outside of the space."""
    at = {name: getattr(settings, name) for name in space}
    if at.get("learning_rate") == 0:
        at["learning_rate"] = usual_rate(settings)
    return at if holds(space, at) else None


def spread(space: Space) -> dict[str, str]:
    """The space in words, for people and JSON."""
    return {name: str(values) for name, values in space.items()}


def largest(space: Space, settings: Settings) -> Settings:
    """The settings of the trial that needs the most memory."""
    sized = {name: max(_ends(space[name])) for name in ("rank", "layers") if name in space}
    if 0 in _ends(space.get("layers", Choice(values=()))):
        sized["layers"] = 0  # all of them
    return replace(settings, **sized)


def count(space: Space) -> int | None:
    """How many different settings the space holds; None for more than can be counted."""
    if any(isinstance(values, Range) and not values.whole for values in space.values()):
        return None
    return prod(len(_whole(values)) for values in space.values())


def every(space: Space) -> list[dict[str, Any]]:
    """All settings of a space that can be counted."""
    return [dict(zip(space, values, strict=True)) for values in product(*map(_whole, space.values()))]


def holds(space: Space, settings: dict[str, Any]) -> bool:
    """Whether `settings` are one of the space."""
    return settings.keys() == space.keys() and all(
        _within(space[name], value) for name, value in settings.items()
    )


def _whole(values: Choice | Range) -> Sequence[Any]:
    return values.values if isinstance(values, Choice) else range(int(values.low), int(values.high) + 1)


def _values(name: str, text: str) -> Choice | Range:
    kind = _kind(name)
    low, dots, high = text.partition("..")
    if not dots:
        values = tuple(_value(name, kind, piece.strip()) for piece in text.split("|"))
        if len(set(values)) != len(values) or len(values) < 2:
            raise _wrong(f"{name} needs two values or more, each once.")
        return Choice(values=values)
    if kind not in (int, float):
        raise _wrong(f"{name} has no range; name its values, as in {name}=a|b.")
    ends = Range(low=_value(name, kind, low), high=_value(name, kind, high), whole=kind is int)
    if not ends.low + _NARROW * abs(ends.low) < ends.high:
        raise _wrong(f"The range of {name} ends before it begins, or is too narrow.")
    return ends


def _kind(name: str) -> type:
    if name in ("freeze_a", "rslora"):
        return bool
    value = 0.0 if name == "weight_decay" else getattr(Settings(), name)
    return type(value)


def _value(name: str, kind: type, text: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "yes": True, "false": False, "no": False}[text.lower()]
        value = kind(text)
    except (KeyError, ValueError):
        raise _wrong(f"{name} cannot be {text!r}.") from None
    if isinstance(value, float) and not isfinite(value):
        raise _wrong(f"{name} cannot be {text!r}.")
    return value


def _ends(values: Choice | Range) -> tuple[Any, ...]:
    return values.values if isinstance(values, Choice) else (values.low, values.high)


def _check(settings: Settings, name: str, value: Any) -> None:
    if name in _ZERO_MEANS_USUAL and value == 0:
        raise _wrong(f"0 means the usual {name}, so it is none to search.")
    try:
        replace(settings, **{name: value})
    except ConfigWrong:
        raise _wrong(f"{name} cannot be {_word(value)}.") from None


def _within(values: Choice | Range, value: Any) -> bool:
    if isinstance(values, Choice):
        return value in values.values
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and values.low <= value <= values.high


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _wrong(why: str) -> ConfigWrong:
    return ConfigWrong(why, "Write the space as --over learning_rate=0.05..0.4,rank=2|4|8")
