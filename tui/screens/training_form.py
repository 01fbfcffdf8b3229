"""The way from a form to a training, or a search, that runs: form, plan, a last question."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from appliance.core.errors import ApplianceError
from tui.screens.deeds import training
from tui.screens.form import FormWindow
from tui.screens.frame import Framed
from tui.screens.training_fields import Choices, spec_from, training_fields
from tui.session import Session


def ask_training(screen: Framed, *, search: bool = False, given: Mapping[str, str] | None = None) -> None:
    """Ask what to train, show what it costs, ask again, start it; `given` is what the form begins with."""
    site = screen.site
    screen.attempt(lambda: _there(site), lambda there: _ask(screen, there, search, given))


def _there(site: Session) -> Choices:
    datasets = [data.title for data in reversed(site.datasets())]
    bases = [model.name for model in reversed(site.models()) if model.kind == "base"]
    return Choices(datasets=tuple(datasets), bases=tuple(bases))


def _ask(
    screen: Framed, there: Choices, search: bool, given: Mapping[str, str] | None, words: str = ""
) -> None:
    spec_of = partial(spec_from, search=search)
    form = FormWindow(
        "Search settings" if search else "Train",
        "Plan it",
        training_fields(there, search=search),
        words=words,
        given=given,
        check=spec_of,
    )

    def answered(found: dict[str, Any] | None) -> None:
        if found is None:
            return

        def again(problem: ApplianceError) -> None:
            _ask(screen, there, search, typed(found), f"{problem.message} {problem.hint}\n")

        screen.plan(training(spec_of(found), search=search), again)

    screen.app.push_screen(form, answered)


def typed(found: Mapping[str, Any]) -> dict[str, str]:
    """Answers as they were typed, for the same form again."""
    return {key: _text(value) for key, value in found.items()}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f"{value}"
