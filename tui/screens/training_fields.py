"""What the training form asks: the options of `cloister train`, as fields. Pure."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from appliance.core.errors import ConfigWrong
from appliance.train.settings import Settings, settings_from
from tui.cli.train_options import OPTIONS
from tui.fields import Field

ALONE = ("processes",)
"""Settings that a search does not have: its trials run in one process."""
_FIRST = ("epsilon", "method", "rank", "steps")
_USUAL = "as usual"
_EPSILON = (
    "Smaller protects more: what the model does is at most e^epsilon times as likely as if one of them had"
    " never been there. 1: 2.7 times, 3: 20, 8: 2,981. Empty: as much as the budget allows."
)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What there is to train on: datasets as name@version, the newest first, and bases."""

    datasets: tuple[str, ...]
    bases: tuple[str, ...]


def training_fields(there: Choices, *, search: bool = False) -> list[Field]:
    """The fields of a training or a search.

    Raises:
        ConfigWrong: there is no dataset, or no base.
    """
    if not there.datasets:
        raise ConfigWrong("There is no dataset to train on.", "Import records first: 2 Data, key i.")
    if not there.bases:
        raise ConfigWrong(
            "There is no base model to train.",
            "Import one first, or the shipped one: cloister model import demo",
        )
    left_out = ALONE if search else ()
    named = [name for name in OPTIONS if name not in (*_FIRST, "no_privacy", *left_out)]
    return [
        *_what(there),
        *(_SEARCH if search else ()),
        *(_field(name) for name in _FIRST),
        _NAME,
        _MORE,
        *(_field(name, when=("more", "yes")) for name in named),
    ]


def spec_from(found: Mapping[str, Any], *, search: bool = False) -> dict[str, Any]:
    """The spec of the training that was answered.

    Raises:
        ConfigWrong: settings out of range.
    """
    name, _, version = str(found["dataset"]).partition("@")
    settings = {key: _given(key, found[key]) for key in OPTIONS if _is_given(found.get(key))}
    settings |= {"private": False} if found["private"] is False else {}
    settings_from(settings)
    spec: dict[str, Any] = {"dataset": name, "base": found["base"], "settings": settings}
    if version:
        spec["version"] = int(version)
    if found["name"]:
        spec["name"] = found["name"]
    if search:
        spec |= {"over": found["over"] or "", "trials": found["trials"], "public": found["public"]}
    return spec


def _is_given(value: Any) -> bool:
    return value is not None and value != _USUAL


def _given(name: str, value: Any) -> Any:
    if name == "targets":
        return [part.strip() for part in str(value).split(",") if part.strip()]
    if name == "freeze_a":
        return value == "yes"
    return value


def _what(there: Choices) -> tuple[Field, ...]:
    return (
        Field(
            key="dataset",
            title="Dataset",
            help="What it learns from; left and right choose. Only its train split is learnt.",
            kind="choice",
            choices=there.datasets,
            default=there.datasets[0],
        ),
        Field(
            key="base",
            title="Base",
            help="The model that is taught. It stays as it is; what is learnt becomes an adapter beside it.",
            kind="choice",
            choices=there.bases,
            default=there.bases[0],
        ),
        Field(
            key="private",
            title="Private",
            help="yes: what it says of one person is bounded by epsilon. no: NO PROTECTION, it may repeat"
            " records word for word, its card says so for good, and two people must agree.",
            kind="yes",
            default="yes",
        ),
    )


_SEARCH = (
    Field(
        key="over",
        title="Try",
        help="NAME=LOW..HIGH or NAME=A|B, with commas: learning_rate=0.05..0.4,rank=2|4|8. Empty: the"
        " learning rate around the usual one.",
    ),
    Field(
        key="trials",
        title="Trials",
        help="How many trainings. All are paid from the budget: more trials mean more noise in each.",
        kind="whole",
        default="6",
        needed=True,
    ),
    Field(
        key="public",
        title="Public",
        help="yes: you declare these records PUBLIC. Nothing is charged, nobody is protected, no model is"
        " kept, only the best settings. Written to the audit log.",
        kind="yes",
        default="no",
    ),
)
_NAME = Field(key="name", title="Name", help="Name of the model that is made. Empty: method and job.")
_MORE = Field(
    key="more",
    title="More",
    help="yes: every other setting. Each has a default that works; only change one if you know why.",
    kind="yes",
    default="no",
)


def _field(name: str, *, when: tuple[str, str] | None = None) -> Field:
    """An option as a field: its help, its kind, and its default, which "" stands for."""
    kind, option = typing.get_args(OPTIONS[name])
    title, usual = name.replace("_", " ").capitalize(), getattr(Settings(), name)
    text = str(option.help)
    if name == "epsilon":
        return Field(key=name, title=title, help=_EPSILON, kind="number", when=("private", "yes"))
    if isinstance(option.click_type, click.Choice):
        choices = tuple(str(one) or _USUAL for one in option.click_type.choices)
        return Field(
            key=name,
            title=title,
            help=text,
            kind="choice",
            choices=choices,
            default=usual or _USUAL,
            when=when,
        )
    if name == "freeze_a":
        choices = (_USUAL, "yes", "no")
        return Field(
            key=name, title=title, help=text, kind="choice", choices=choices, default=_USUAL, when=when
        )
    if kind is bool:
        return Field(
            key=name, title=title, help=text, kind="yes", default="yes" if usual else "no", when=when
        )
    default = ",".join(usual) if isinstance(usual, tuple) else "" if usual is None else f"{usual}"
    kinds = {int: "count", float: "amount", float | None: "amount"}
    return Field(key=name, title=title, help=text, kind=kinds.get(kind, "text"), default=default, when=when)
