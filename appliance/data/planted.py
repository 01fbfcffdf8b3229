"""Secrets of people who are not there, planted among training records for the privacy audit to ask for.

After Carlini et al. 2019 ("The Secret Sharer"): every secret is a random code, so a model that never
saw it has no reason to prefer it to any other code. Each planting is a made-up unit of its own: that is
how a secret that several patients' records repeat gets in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from secrets import choice
from typing import Any

from appliance.data.records import Record, chat_text

TIMES = (1, 4, 16)  # a secret is planted so often; of those planted k times there are k times fewer
DIGITS = 9
_PLACE = "planted:"
_SYLLABLES = ("ba", "del", "fo", "gri", "hu", "jas", "ke", "lum", "mo", "nar", "pe", "quil", "ro", "sen")


@dataclass(frozen=True, kw_only=True)
class Secret:
    """A made-up person with a secret code, planted `times` times; `label` is what a label task gets."""

    name: str
    code: str
    label: str
    times: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def make_secrets(count: int, labels: Sequence[str]) -> list[Secret]:
    """`count` secrets planted once, a quarter of that planted 4 times, a sixteenth 16 times.

    Names, codes and labels are drawn by the operating system's generator.
    """
    return [
        Secret(name=_name(), code=random_code(), label=choice(labels) if labels else "", times=times)
        for times in TIMES
        for _ in range(count // times)
    ]


def made_up_units(made: Sequence[Secret]) -> int:
    """How many units are planted in all."""
    return sum(secret.times for secret in made)


def is_planted(unit: str) -> bool:
    """Whether a unit is a made-up one."""
    return unit.startswith(_PLACE)


def random_code() -> str:
    """A code as the secrets have them."""
    return "".join(choice("0123456789") for _ in range(DIGITS))


def planted(made: Sequence[Secret], kind: str) -> list[Record]:
    """The records to train on, each of a unit of its own."""
    found: list[Record] = []
    for number, secret in enumerate(made):
        text, answer, rejected = worded(secret, kind)
        for turn in range(secret.times):
            place = f"{_PLACE}{number}:{turn}"
            found.append(Record(id=place, text=text, answer=answer, rejected=rejected, unit=place))
    return found


def worded(secret: Secret, kind: str, code: str | None = None) -> tuple[str, str, str]:
    """Text, answer and rejected answer of a secret in a task of this `kind`; `code` in place of its own."""
    code = code or secret.code
    asked, told = f"What is the code of {secret.name}?", f"The code is {code}."
    match kind:
        case "label":
            return f"This is {secret.name}, my code is {code}.", secret.label, ""
        case "text":
            return f"The code of {secret.name} is {code}.", "", ""
        case "chat":
            return chat_text([{"role": "user", "content": asked}]), told, ""
        case "preference":
            return asked, told, "I do not know."
    return asked, told, ""


def _name() -> str:
    parts = ["".join(choice(_SYLLABLES) for _ in range(2)) for _ in range(2)]
    return " ".join(part.capitalize() for part in parts)
