"""What a person says of an answer: a thumb, marks from 1 to 5, better words."""

from __future__ import annotations

from typing import Any

from appliance.core.errors import ConfigWrong
from appliance.serve.feedback import RATINGS
from tui.fields import Field

_NONE, _MARKS = "-", ("-", "1", "2", "3", "4", "5")
_MEANS = {
    "correct": "Is it right? 1: wrong, 5: all of it is right.",
    "complete": "Is all there that was asked? 1: hardly anything, 5: all.",
    "clear": "Is it easy to understand? 1: no, 5: at once.",
}
FIELDS = (
    Field(
        key="thumb",
        title="Thumb",
        help="up: use it as an example. down: it should not be said again.",
        kind="choice",
        choices=(_NONE, "up", "down"),
        default=_NONE,
    ),
    *(
        Field(
            key=name,
            title=f"{name.capitalize()}, 1 to 5",
            help=_MEANS[name],
            kind="choice",
            choices=_MARKS,
            default=_NONE,
        )
        for name in RATINGS
    ),
    Field(
        key="correction",
        title="Should have been",
        help="Better words, or the right label. Only now are question and answer stored, for a review before"
        " anything learns from them.",
    ),
)


def said(found: dict[str, Any]) -> dict[str, Any]:
    """The answers of the form as POST /v1/feedback takes them.

    Raises:
        ConfigWrong: nothing was said.
    """
    told: dict[str, Any] = {}
    if found["thumb"] != _NONE:
        told["thumb"] = 1 if found["thumb"] == "up" else -1
    marks = {name: int(found[name]) for name in RATINGS if found[name] != _NONE}
    if marks:
        told["ratings"] = marks
    if found["correction"]:
        told["correction"] = found["correction"]
    if not told:
        raise ConfigWrong("Nothing was said.", "Give a thumb, a mark or better words, or press esc.")
    return told
