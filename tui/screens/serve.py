"""Serve: the endpoints that run now."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import DataTable

from tui.cli.endpoint_lines import endpoint_lines
from tui.screens.entry import Entry
from tui.screens.feedback import FeedbackScreen
from tui.screens.listing import Listing
from tui.screens.site import SiteView
from tui.widgets.pane import Pane


class ServeScreen(Listing):
    """The running endpoints."""

    HERE = "serve"
    HELP = (
        "An endpoint answers the OpenAI API for whoever has a key. Enter shows its job."
        " The same in a shell: cloister serve MODEL, cloister serve status."
    )
    COLUMNS = ("ADDRESS", "JOB", "REQUESTS", "OPEN", "TOKENS/S")
    EMPTY = (
        "No endpoint runs.\n\nAn endpoint answers questions with a model that has passed its gate."
        "\nPress : and choose `serve MODEL`, or press 1 for Home: it names the next step."
    )
    BINDINGS: ClassVar[list[BindingType]] = [Binding("f", "feedback", "Feedback")]
    PALETTE: ClassVar[tuple[Entry, ...]] = (
        Entry(words="serve status", help="Running endpoints and their figures"),
        Entry(words="feedback list", help="What people said of answers", action="feedback"),
    )

    def body(self) -> ComposeResult:
        """The list, in a box, and the figures of the chosen one."""
        with Vertical(id="body"):
            with Vertical(classes="box") as box:
                box.border_title = "Endpoints"
                yield from self.table()
            yield Pane("Endpoint", id="about")

    def read_more(self, view: SiteView) -> list[dict[str, Any]]:
        """The endpoints."""
        return self.site.endpoints()

    def draw(self, view: SiteView) -> None:
        """Fill the list."""
        self.fill([(one["job"], cells(one)) for one in self.more])
        self.show_chosen()

    @on(DataTable.RowHighlighted)
    def show_chosen(self) -> None:
        """The figures of the chosen endpoint."""
        pane = self.query_one("#about", Pane)
        one = next((one for one in self.more or () if one["job"] == self.chosen), None)
        pane.display = one is not None
        if one is not None:
            text = "\n".join(endpoint_lines(one)) if "requests" in one else "no request yet"
            pane.show(lambda width, height: text)

    @on(DataTable.RowSelected)
    def chosen_opened(self) -> None:
        """Open the endpoint's job."""
        if self.chosen is not None:
            self.open_job(self.chosen)

    def action_feedback(self) -> None:
        """What people said of answers."""
        self.app.push_screen(FeedbackScreen())


def cells(one: dict[str, Any]) -> tuple[str, ...]:
    """One row."""
    requests, active = one.get("requests", 0), one.get("active", 0)
    return (one["url"], one["job"], f"{requests:,}", f"{active:,}", f"{one.get('tokens_per_second', 0):,.1f}")
