"""Opens what a next step needs: a form with what is known filled in, or what is to be read first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from tui.screens.deeds import Deed
from tui.screens.evaluate_report import ReportScreen
from tui.screens.frame import Framed
from tui.screens.importing import ask_import
from tui.screens.modals import Words
from tui.screens.model_importing import ask_model
from tui.screens.serve_form import ask_serving
from tui.screens.site import look

if TYPE_CHECKING:
    from tui.app import Cloister


def open_form(screen: Framed, deed: Deed) -> None:
    """Ask what a deed needs."""
    app = cast("Cloister", screen.app)
    if deed.verb == "chat":
        app.show_screen("serve", "ask")
    elif deed.verb == "serve":
        ungated = "--ungated" in deed.words
        screen.attempt(  # below this screen another may have looked last before there was a file
            lambda: look(screen.site, time.time(), 1),
            lambda view: ask_serving(screen, view, deed.target, ungated=ungated),
        )
    elif deed.verb == "report":
        screen.attempt(lambda: screen.site.reports(deed.target), lambda found: _open(screen, deed, found))
    elif deed.target == "data":
        ask_import(screen, app.begun.given if app.begun else None)
    else:
        ask_model(screen, file=deed.target == "file")


def _open(screen: Framed, deed: Deed, reports: list[dict[str, Any]]) -> None:
    """The newest report; without one, the words for the model's card."""
    if reports:
        screen.app.push_screen(ReportScreen(str(reports[0]["job"]), deed.target))
    else:
        screen.app.push_screen(Words(f"No report on {deed.target}", f"Its card: {deed.words}"))
