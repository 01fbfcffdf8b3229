"""A form whose deed is tried: what is refused brings the form back as it was, with the reason above it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from appliance.core.errors import ApplianceError, NeedsApproval
from tui.fields import Field, written
from tui.screens.form import Check, FormWindow
from tui.screens.frame import Framed

T = TypeVar("T")


def ask_and_try(
    screen: Framed,
    fields: Sequence[Field],
    work: Callable[[dict[str, Any]], T],
    then: Callable[[T], object],
    *,
    title: str,
    label: str,
    words: str = "",
    check: Check | None = None,
    given: Mapping[str, str] | None = None,
) -> None:
    """Ask, do `work` with the answers in a worker, and give `then` what it returned.

    Passphrases do not come back with the form. What two people must agree to is told by the screen.
    """

    def ask(filled: Mapping[str, str], above: str) -> None:
        form = FormWindow(title, label, fields, words=above, check=check, given=filled)
        screen.app.push_screen(form, answered)

    def answered(found: dict[str, Any] | None) -> None:
        if found is not None:
            screen.attempt(lambda: _tried(work, found), lambda end: after(end, found))

    def after(end: T | ApplianceError, found: dict[str, Any]) -> None:
        if isinstance(end, ApplianceError):
            secret = {field.key for field in fields if field.kind == "secret"}
            typed = {key: text for key, text in written(found).items() if key not in secret}
            ask(typed, f"error: {end.message}\n" + (f"try: {end.hint}\n" if end.hint else ""))
        else:
            then(end)

    ask(given or {}, words)


def _tried(work: Callable[[dict[str, Any]], T], found: dict[str, Any]) -> T | ApplianceError:
    try:
        return work(found)
    except NeedsApproval:
        raise
    except ApplianceError as problem:
        return problem
