"""Sites: the federations this home takes part in; Enter opens one."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import DataTable

from appliance.core.profile import has_site
from tui import session_federate
from tui.screens.entry import Entry
from tui.screens.federation import CoordinatorScreen, SiteScreen
from tui.screens.federation_begin import ask_begin
from tui.screens.federation_forms import ask_join, ask_request
from tui.screens.listing import Listing
from tui.screens.modals import Words
from tui.screens.site import SiteView


class SitesScreen(Listing):
    """The federations."""

    HERE = "sites"
    HELP = (
        "In a federation several sites train one model together; records never leave a site. A coordinator"
        " begins it (n). A site asks (r), the coordinator lets it in and gives it a kit, the site joins with"
        " that (j). Enter opens one. The same in a shell: cloister federate list|init|request|join|status."
    )
    COLUMNS = ("NAME", "THIS HOME", "SITES", "ROUNDS", "UNTIL", "JOB", "STATE")
    EMPTY = (
        "No federation yet.\n\nIn a federation several sites train one model together, and no record leaves"
        " its site.\nA coordinator begins one: press n. A site asks to be let in: press r; with the kit that"
        " comes back: press j."
    )
    RIGHTS: ClassVar[dict[str, str]] = {
        "begin": "federate.coordinate",
        "request": "federate.take-part",
        "join": "federate.take-part",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "begin", "New"),
        Binding("r", "request", "Ask", tooltip="Ask a coordinator to be let in"),
        Binding("j", "join", "Join"),
    ]
    PALETTE: ClassVar[tuple[Entry, ...]] = (
        Entry(words="federate list", help="Federations of this home"),
        Entry(words="federate init", help="Begin a federation, as its coordinator", action="begin"),
        Entry(words="federate request", help="Ask a coordinator to be let in", action="request"),
        Entry(words="federate join", help="Take the seat of a kit that came back", action="join"),
    )

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

    def reason(self, action: str) -> str | None:
        """An edge installation trains nothing."""
        return super().reason(action) if has_site() or action not in self.RIGHTS else "not installed here"

    @on(DataTable.RowSelected)
    def opened(self) -> None:
        """Open one; a site that waits for its kit has nothing to show yet."""
        one = next((one for one in self.more or () if one["name"] == self.chosen), None)
        if one is None:
            return
        if one["side"] == "asked":
            told = "This site waits for its kit. When it is here, press j."
            self.app.push_screen(Words(one["name"], told))
            return
        made = CoordinatorScreen if one["side"] == "coordinator" else SiteScreen
        self.app.push_screen(made(one["name"]))

    def action_begin(self) -> None:
        """Begin one, as its coordinator."""
        ask_begin(self)

    def action_request(self) -> None:
        """Ask to be let in."""
        ask_request(self)

    def action_join(self) -> None:
        """Join with a kit."""
        ask_join(self)


def cells(one: dict[str, Any]) -> tuple[str, ...]:
    """One row."""
    figures = (one["sites"], one["rounds"], one["expires"], one["job"])
    shown = (str(figure) if figure is not None else "-" for figure in figures)
    return (one["name"], one["side"], *shown, one["state"] or "not started")
