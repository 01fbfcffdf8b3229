"""Removing a dataset: which versions, what is lost, its name typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from appliance.data.store import Dataset
from appliance.ops.data_removal import DataRemoval
from tui import session_data
from tui.fields import Field
from tui.screens.data_lines import removal_text, removed_text, versions_of
from tui.screens.form import FormWindow
from tui.screens.frame import Framed
from tui.screens.modals import ConfirmName
from tui.screens.site import SiteView

_THIS, _ALL = "this version", "all versions"
_WHAT = (
    Field(
        key="what",
        title="Remove",
        help="this version alone, or all versions of the dataset.",
        kind="choice",
        choices=(_THIS, _ALL),
        default=_THIS,
    ),
)


def ask_removal(screen: Framed, data: Dataset, then: Callable[[], object]) -> None:
    """Ask, remove, and go on with `then`."""
    view: SiteView | None = getattr(screen, "view", None)

    def answered(found: dict[str, Any] | None) -> None:
        if found is not None:
            _plan(screen, data.name if found["what"] == _ALL else data.title, then)

    if view is not None and versions_of(data, view.datasets):
        screen.app.push_screen(FormWindow(f"Remove {data.title}", "Go on", _WHAT), answered)
    else:
        _plan(screen, data.title, then)


def _plan(screen: Framed, name: str, then: Callable[[], object]) -> None:
    def planned(going: DataRemoval) -> None:
        screen.app.push_screen(ConfirmName(removal_text(going), name, "Remove for good"), sure)

    def sure(yes: bool | None) -> None:
        if yes:
            screen.attempt(lambda: session_data.remove(screen.site, name), removed)

    def removed(going: DataRemoval) -> None:
        screen.app.notify(removed_text(going), markup=False)
        then()

    screen.attempt(lambda: session_data.plan_removal(screen.site, name), planned)
