"""Privacy: each dataset's budget and what was spent of it."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import DataTable

from appliance.core.profile import has_site
from tui.screens.entry import Entry
from tui.screens.listing import Listing
from tui.screens.site import LIVE, SiteView
from tui.widgets.gauge import gauge
from tui.widgets.pane import Pane


class PrivacyScreen(Listing):
    """The budgets."""

    HERE = "privacy"
    HELP = (
        "Epsilon bounds what the models trained here can give away of one person: smaller is safer. A"
        " dataset's budget is the most that all trainings on it may spend together. The same in a shell:"
        " cloister budget show|set."
    )
    COLUMNS = ("DATASET", "UNIT", "SPENT", "LIMIT", "", "DELTA")
    EMPTY = (
        "No budget used yet.\n\nA dataset has a privacy budget from its first private training on."
        "\nPress 1 for Home: it names the next step."
    )
    PALETTE: ClassVar[tuple[Entry, ...]] = (Entry(words="budget show", help="What is left of each budget"),)

    def begin(self) -> None:
        """Nothing was read yet."""
        self._read_for: object = None
        super().begin()

    def body(self) -> ComposeResult:
        """The list, in a box, and what was spent of the chosen one."""
        with Vertical(id="body"):
            with Vertical(classes="box") as box:
                box.border_title = "Budget by dataset"
                yield from self.table()
            yield Pane("Spent", id="about")

    def read_more(self, view: SiteView) -> list[dict[str, Any]]:
        """The budgets; reading them takes seconds, so it is done when a training has begun or ended."""
        trained = tuple((job.id, job.state in LIVE) for job in view.jobs if job.kind in ("train", "join"))
        now = (view.budgets, trained)
        if now == self._read_for:
            return list(self.more)
        found = self.site.budgets() if has_site() and view.budgets else []
        self._read_for = now
        return found

    def draw(self, view: SiteView) -> None:
        """Fill the list."""
        self.fill([(one["name"], cells(one)) for one in self.more])
        self.show_chosen()

    @on(DataTable.RowHighlighted)
    def show_chosen(self) -> None:
        """What was spent of the chosen budget."""
        pane = self.query_one("#about", Pane)
        one = next((one for one in self.more or () if one["name"] == self.chosen), None)
        pane.display = one is not None
        if one is not None:
            pane.border_title = f"Spent on {one['name']}"
            pane.show(lambda width, height: f"{len(one['events'])} charges in the ledger")


def cells(one: dict[str, Any]) -> tuple[str, ...]:
    """One row."""
    spent, limit = one["epsilon_spent"], one["epsilon_limit"]
    share = spent / limit if limit else 1.0
    return (one["name"], one["unit"], f"{spent:.2f}", f"{limit:g}", gauge(share, 10), f"{one['delta']:.1e}")
