"""Sites: the federations this home takes part in."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.containers import Vertical

from appliance.core.profile import has_site
from tui import session_federate
from tui.screens.entry import Entry
from tui.screens.listing import Listing
from tui.screens.site import SiteView


class SitesScreen(Listing):
    """The federations."""

    HERE = "sites"
    HELP = (
        "In a federation several sites train one model together; records never leave a site."
        " The same in a shell: cloister federate list|status|check."
    )
    COLUMNS = ("NAME", "THIS HOME", "SITES", "ROUNDS", "UNTIL", "JOB", "STATE")
    EMPTY = (
        "No federation yet.\n\nIn a federation several sites train one model together, and no record leaves"
        " its site.\nA coordinator begins one in a shell: cloister federate init --help"
        "\nA site asks to join one: cloister federate request --help"
    )
    PALETTE: ClassVar[tuple[Entry, ...]] = (Entry(words="federate list", help="Federations of this home"),)

    def body(self) -> ComposeResult:
        """The list, in a box."""
        with Vertical(id="body", classes="box") as box:
            box.border_title = "Federations"
            yield from self.table()

    def read_more(self, view: SiteView) -> list[dict[str, Any]]:
        """The federations; an edge installation has none."""
        return session_federate.listed(self.site) if has_site() else []

    def draw(self, view: SiteView) -> None:
        """Fill the list."""
        self.fill([(one["name"], cells(one)) for one in self.more])


def cells(one: dict[str, Any]) -> tuple[str, ...]:
    """One row."""
    figures = (one["sites"], one["rounds"], one["expires"], one["job"])
    shown = (str(figure) if figure is not None else "-" for figure in figures)
    return (one["name"], one["side"], *shown, one["state"] or "not started")
